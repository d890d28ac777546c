"""`rerun`: the same settings and launcher flags again.

In the same folder, where the run resumes. If a changed setting changes the result, it is another run: it gets a folder
of its own, and the old one stays.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from job import config
from job.errors import Refused
from job.run.folder import RunFolder
from launch.runs import folders, states
from launch.runs.folders import Job

STAMP = re.compile(r"-\d{8}-\d{6}(-\d+)?$")
VERBS = {"slurm": "submit", "local": "local", "docker": "docker"}


@dataclass(frozen=True)
class Rerun:
    """What is to be launched."""

    verb: str
    flags: tuple[str, ...]
    """The launcher's flags of the job before, as it was told them, recipe included."""
    settings: Path
    """File with the run's settings."""
    run: Path
    """Folder of the run to be."""
    changes: tuple[str, ...]
    """Flags of the job that are not as before."""
    differing: tuple[str, ...]
    """Settings that they change, and the result with them."""

    def __str__(self) -> str:
        if self.differing:
            return f"another {', '.join(self.differing)} changes the result: a new run in {self.run}"
        return f"{self.run} again, with the same settings"

    def job(self) -> list[str]:
        """Words of the job's command line; how the run began is not repeated: it resumes."""
        begin = ["--output_dir", str(self.run), "--no_overwrite_output_dir", "--resume_from_checkpoint", "auto"]
        return [*begin, *self.changes]


def plan(run: str, changes: Sequence[str]) -> Rerun:
    """How `run` is launched again.

    Raises:
        Refused: it runs or waits, has ended well and nothing is changed, or does not say how it was launched.
    """
    path = (folders.newest_submission() if run == folders.LATEST else folders.find(run)).absolute()
    job = folders.newest_job(path)
    if job is None:
        raise Refused(f"{path.name} was not started by this launcher: accelerate launch job/train.py "
                      f"{path}/config.yaml --output_dir {path} resumes it")  # fmt: skip
    settings = _settings(path, job)
    differing = config.differing_settings(config.load_recipe(str(settings)), config.parse([str(settings), *changes]))
    if any(re.match("--output[_-]dir", word) for word in changes):
        raise Refused("rerun chooses the folder itself: leave out --output_dir")
    if not differing:
        _refuse_if_open_or_done(path, changes)
    return Rerun(
        verb=VERBS.get(job.launcher, "submit"),
        flags=job.flags,
        settings=settings,
        run=_beside(path) if differing else path,
        changes=tuple(changes),
        differing=tuple(differing),
    )


def merged(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Launcher flags: those of the job before, as its parsed command line has them, unless they are given now."""
    values = {**_given(before), **_given(now)}
    return [*(f"--{name}={value}" for name, value in values.items() if value is not True),
            *(f"--{name}" for name, value in values.items() if value is True)]  # fmt: skip


def _given(arguments: Mapping[str, object]) -> dict[str, object]:
    ours = ("recipe", "run", "flags", "job")
    return {k: v for k, v in arguments.items() if k not in ours and v is not None and v is not False and v != ""}


def _settings(path: Path, job: Job) -> Path:
    """The file with the settings: what was submitted, else what the job wrote."""
    for file in (*([path / job.config] if job.config else []), RunFolder(path).config):
        if file.is_file():
            return file
    raise Refused(f"{path.name} has no config.yaml: its job never began; start it as it was started")


def _refuse_if_open_or_done(path: Path, changes: Sequence[str]) -> None:
    view = states.look([path], time.time())[0][0]
    if view.state in ("QUEUED", "RUNNING"):
        raise Refused(f"{path.name} is {view.state} (job {view.run.job}): `cancel {path.name}` comes first")
    if view.state == "DONE" and "--overwrite_output_dir" not in changes:
        raise Refused(f"{path.name} is DONE: change a setting after `--`, or repeat it with -- --overwrite_output_dir")


def _beside(path: Path) -> Path:
    """A new folder, named after `path` and the time."""
    name = f"{STAMP.sub('', path.name)}-{time.strftime('%Y%m%d-%H%M%S')}"
    made, number = path.parent / name, 1
    while made.exists():
        number += 1
        made = path.parent / f"{name}-{number}"
    return made
