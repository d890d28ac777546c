"""Site settings of a cluster. Flags override the environment (`MUSTER_PARTITION=...`), which overrides .env.

No site's settings are in the code: a site writes its own to .env once. Every value ends up in a batch script, so each
may contain only the characters of its kind. Two are shell code by design: --setup and the flags of --sbatch.
"""

from __future__ import annotations

import argparse
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
"""Settings for which an empty flag means none; for others it means that the flag is not given, as from make."""


def setting(help: str, pattern: str = NAME, default: str = "") -> Any:
    """A text that matches the whole `pattern`, or is empty."""
    return field(default=default, metadata={"help": help, "pattern": pattern})


@dataclass(frozen=True)
class Site:
    """The site settings; empty if not given."""

    partition: str = setting("partition to queue in")
    account: str = setting("account to charge")
    qos: str = setting("quality of service")
    constraint: str = setting("features that nodes must have, e.g. a100|h100", EXPRESSION)
    gres: str = setting("request GPUs with --gres instead of --gpus-per-node: gpu or gpu:h100")
    time: str = setting("time limit of one start: 30 (minutes), 4h, 2d, 1-12:00:00", default="1h")
    cpus_per_task: str = setting("cores per process, also its threads unless OMP_NUM_THREADS is set", COUNT, "4")
    signal_delay: str = setting("seconds before the time limit at which the job saves and stops", COUNT, "120")
    master_addr: str = setting("address of the first node, if node names do not resolve")
    setup: str = setting("shell commands to run before the job, e.g. 'module load cuda'", ANY)
    container: str = setting("none, apptainer or pyxis", "|".join(RUNTIMES), "none")
    image: str = setting("container image: a file, or any name that the runtime accepts", ANY)
    sbatch: str = setting("additional flags for sbatch, e.g. '--mem=64G --exclude=node7'", ANY)
    job_name: str = setting("name of the job; unset: the run folder's name")
    wckey: str = setting("wckey to charge; empty: none")

    @property
    def clusters(self) -> str:
        """The clusters in --sbatch, separated by commas; empty: the default one."""
        return str(sbatch_flags(self.sbatch).get("clusters", ""))


def read(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> Site:
    """The settings of a submission.

    Raises:
        Refused: a value with invalid characters, or an unknown MUSTER_ variable.
    """
    _refuse_unknown(environ)
    values: dict[str, Any] = {}
    for known in fields(Site):
        origin, value = f"--{known.name}", flags.get(known.name)
        if not value and not (value == "" and known.name in EMPTIED):
            origin, value = PREFIX + known.name.upper(), environ.get(PREFIX + known.name.upper())
        values[known.name] = _checked(origin, value, known.metadata["pattern"]) if value else known.default
    return Site(**values)


def given(arguments: argparse.Namespace) -> dict[str, str]:
    """The site flags on the command line, which do not apply where no Slurm job is made."""
    values = {known.name: getattr(arguments, known.name) for known in fields(Site)}
    return {name: value for name, value in values.items() if value}


def _refuse_unknown(environ: Mapping[str, str]) -> None:
    """Reject unknown MUSTER_ variables: a misspelt one would be ignored, and the job would run in the wrong place."""
    settings = [PREFIX + known.name.upper() for known in fields(Site)]
    shared = [value for value in vars(contract).values() if isinstance(value, str) and value.startswith(PREFIX)]
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in (*settings, *shared):
            own = [setting.removeprefix(PREFIX) for setting in settings]
            close = difflib.get_close_matches(name.removeprefix(PREFIX), own, n=1, cutoff=0.6)
            nearest = f"did you mean {PREFIX}{close[0]}?" if close else f"choose one of {', '.join(settings)}"
            raise Refused(f"{name}, in the environment or .env, is not a setting: {nearest}")


def _checked(origin: str, value: str, pattern: str) -> str:
    if not re.fullmatch(pattern, value):
        if pattern == ANY:
            raise Refused(f"{origin} must be one line without control characters, not {value!r}")
        wanted = {COUNT: "an integer above 0", "|".join(RUNTIMES): f"one of {', '.join(RUNTIMES)}"}
        raise Refused(f"{origin} takes {wanted.get(pattern, 'a plain name')}, not {value!r}")
    return value


def minutes(text: str) -> int:
    """A time limit in minutes, rounded up: 30, 30m, 4h, 2d, [D-]HH:MM:SS, D-HH or D-HH:MM; otherwise Refused."""
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
        raise Refused(f"--sbatch cannot be split into flags: {str(error).lower()} in {text!r}") from None
    found: dict[str, str | bool] = {}
    for word in words:
        match = re.fullmatch(r"--([a-z][a-z-]*)(?:=(.+))?", word)
        if not match:
            raise Refused(f"--sbatch takes flags of the form --name=value, not {word!r}")
        found[match[1]] = match[2] or True
    return found


def safe_path(name: str, path: Path) -> Path:
    """`path`, unless Slurm would misinterpret it: it expands %, and a backslash turns that off for the rest."""
    if not re.fullmatch(ANY, str(path)) or set("%\\") & set(str(path)):
        raise Refused(f"{name} {str(path)!r}: Slurm does not allow %, backslashes or control characters in paths")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise Refused(
            f"{name} {str(path)!r} is not valid UTF-8, in which batch scripts are written: rename it"
        ) from None
    return path
