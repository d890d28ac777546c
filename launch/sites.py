"""What differs from cluster to cluster: flags beat the environment (`MUSTER_PARTITION=...`), which beats .env.

No site's setting is in the code: a site writes its own into .env once. Every value is text that ends up in a batch
script, so each is held to the characters that its kind is made of. Two are shell by design and are the site's own:
--setup and the words of --sbatch.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from job.errors import Refused
from job.runtime import contract

PREFIX = "MUSTER_"
NAME = r"[A-Za-z0-9._=:@%+][A-Za-z0-9._=,:@%+-]*"
EXPRESSION = r"[A-Za-z0-9._(\[][A-Za-z0-9._=,:@%+&|*()\[\]-]*"
ANY = r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]*"
COUNT = r"[1-9][0-9]{0,4}"
RUNTIMES = ("none", "apptainer", "pyxis")
EMPTIED = ("wckey",)
"""Settings whose empty flag means none; of others it means that the flag was not given, as make passes them."""


def setting(help: str, pattern: str = NAME, default: str = "") -> Any:
    """A text that matches `pattern` whole, or nothing."""
    return field(default=default, metadata={"help": help, "pattern": pattern})


@dataclass(frozen=True)
class Site:
    """The settings, as given; nothing where nothing was."""

    partition: str = setting("partition to queue in")
    account: str = setting("account to charge")
    qos: str = setting("quality of service")
    constraint: str = setting("features that nodes must have, as a100|h100", EXPRESSION)
    gres: str = setting("how GPUs are asked for where --gpus-per-node is refused: gpu or gpu:h100")
    time: str = setting("limit of one start: 30 (minutes), 4h, 2d, 1-12:00:00", default="1h")
    cpus_per_task: str = setting("cores of a process, and its threads unless OMP_NUM_THREADS is set", COUNT, "4")
    signal_delay: str = setting("seconds before the time limit at which the job is told to save", COUNT, "120")
    master_addr: str = setting("address of the first node, where node names do not resolve")
    setup: str = setting("shell commands before the job, as 'module load cuda'", ANY)
    container: str = setting("none, apptainer or pyxis", "|".join(RUNTIMES), "none")
    image: str = setting("image of the container: a file, or what the runtime takes", ANY)
    sbatch: str = setting("more flags for sbatch, as '--mem=64G --exclude=node7'", ANY)
    job_name: str = setting("the job's name; unset: the run folder's")
    wckey: str = setting("wckey to charge; empty: none")


def read(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Site:
    """The settings of a submission.

    Raises:
        Refused: a value with characters that its kind does not have, or a variable that means nothing here.
    """
    _refuse_unknown(environ)
    values: dict[str, Any] = {}
    for known in fields(Site):
        origin, value = f"--{known.name}", flags.get(known.name)
        if not value and not (value == "" and known.name in EMPTIED):
            origin, value = PREFIX + known.name.upper(), environ.get(PREFIX + known.name.upper())
        values[known.name] = _checked(origin, value, known.metadata["pattern"]) if value else known.default
    return Site(**values)


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """A misspelt name would be ignored: the job would run elsewhere than it was meant to."""
    settings = [PREFIX + known.name.upper() for known in fields(Site)]
    shared = [value for value in vars(contract).values() if isinstance(value, str) and value.startswith(PREFIX)]
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in (*settings, *shared):
            own = [setting.removeprefix(PREFIX) for setting in settings]
            close = difflib.get_close_matches(name.removeprefix(PREFIX), own, n=1, cutoff=0.6)
            nearest = f"did you mean {PREFIX}{close[0]}?" if close else f"there are {', '.join(settings)}"
            raise Refused(f"{name}, in the environment or .env, is no setting: {nearest}")


def _checked(origin: str, value: str, pattern: str) -> str:
    if not re.fullmatch(pattern, value):
        if pattern == ANY:
            raise Refused(f"{origin} must be one line without control characters, not {value!r}")
        wanted = {COUNT: "a whole number above 0", "|".join(RUNTIMES): f"one of {', '.join(RUNTIMES)}"}
        raise Refused(f"{origin} takes {wanted.get(pattern, 'a plain name')}, not {value!r}")
    return value


def minutes(text: str) -> int:
    """A time limit in minutes, rounded up: 30, 30m, 4h, 2d, [D-]HH:MM:SS, D-HH or D-HH:MM; Refused for others and 0."""
    units = {"": 60, "m": 60, "h": 3600, "d": 86400}
    seconds = 0
    if match := re.fullmatch(r"([0-9]{1,6})([mhd]?)", text):
        seconds = int(match[1]) * units[match[2]]
    elif match := re.fullmatch(r"([0-9]{1,4})-([0-9]{1,2})(?::([0-9]{2}))?(?::([0-9]{2}))?", text):
        days, hours, mins, secs = (int(part or 0) for part in match.groups())
        seconds = ((days * 24 + hours) * 60 + mins) * 60 + secs
    elif match := re.fullmatch(r"([0-9]{1,4}):([0-9]{2}):([0-9]{2})", text):
        hours, mins, secs = (int(part) for part in match.groups())
        seconds = (hours * 60 + mins) * 60 + secs
    if seconds <= 0:
        raise Refused(f"--time takes 30 (minutes), 4h, 2d or 1-12:00:00, not {text!r}")
    return -(-seconds // 60)


def sbatch_flags(text: str) -> dict[str, str | bool]:
    """`--mem=64G --exclusive` as {"mem": "64G", "exclusive": True}; Refused for other forms."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Refused(f"--sbatch cannot be cut into words: {str(error).lower()} in {text!r}") from None
    found: dict[str, str | bool] = {}
    for word in words:
        match = re.fullmatch(r"--([a-z][a-z-]*)(?:=(.+))?", word)
        if not match:
            raise Refused(f"--sbatch takes flags of the form --name=value, not {word!r}")
        found[match[1]] = match[2] or True
    return found


def safe_path(name: str, path: Path) -> Path:
    """`path`, unless Slurm would read it as another: it expands %, and a backslash switches that off for the rest."""
    if not re.fullmatch(ANY, str(path)) or set("%\\") & set(str(path)):
        raise Refused(f"{name} {str(path)!r}: Slurm takes no %, backslash or control character in a path")
    return path
