"""`rerun`: start a run again with the same settings and launcher flags.

It resumes in the same folder. If a changed setting changes the result, it is a new run in a new folder, and the old one
is kept.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from job import config
from job.errors import Refused
from job.run import trial
from job.run.folder import RunFolder
from launch import sites
from launch.runs import folders, reading, run_state, states
from launch.runs.run_state import Job

STAMP = re.compile(r"-\d{8}-\d{6}(-\d+)?$")
VERBS = {"slurm": "submit", "local": "local", "docker": "docker"}


@dataclass(frozen=True)
class Rerun:
    """What to launch."""

    verb: str
    flags: tuple[str, ...]
    """The launcher flags of the previous job, including the recipe."""
    settings: Path
    """File with the run's settings."""
    run: Path
    """Folder of the run."""
    changes: tuple[str, ...]
    """Changed job flags."""
    differing: tuple[str, ...]
    """Changed settings that change the result."""

    def __str__(self) -> str:
        if self.differing:
            return f"changing {', '.join(self.differing)} changes the result: starting a new run in {self.run}"
        return f"starting {self.run} again with the same settings"

    def job(self) -> list[str]:
        """The job's command line."""
        return ["--output_dir", str(self.run), *self.changes]


def plan(run: str, changes: Sequence[str]) -> Rerun:
    """How to launch `run` again.

    Raises:
        Refused: it is running or queued, is done and unchanged, or was not started by this launcher.
    """
    path = (folders.newest_submission() if run == folders.LATEST else folders.find(run)).absolute()
    job = run_state.newest_job(path)
    if job is None:
        raise Refused(f"{path.name} was not started by this launcher: resume it with accelerate launch job/train.py "
                      f"{path}/config.yaml --output_dir {path}")  # fmt: skip
    settings = _settings(path, job)
    changed = config.parse([str(settings), *changes])
    differing = config.differing_settings(config.load_recipe(str(settings)), changed)
    if any(re.match("--output[_-]dir", word) for word in changes):
        raise Refused("rerun chooses the run folder itself: remove --output_dir")
    if not differing:
        _refuse_if_open_or_done(path, overwrites=changed.run.overwrite_output_dir)
    elif trial.is_trial(path) and not trial.settings(path):
        raise Refused(f"{folders.reference(path)} is a trial that the search has not given settings yet: rerun it "
                      "without changes, or change one that has started")  # fmt: skip
    return Rerun(
        verb=VERBS.get(job.launcher, "submit"),
        flags=job.flags,
        settings=settings,
        run=_new_folder(path) if differing else path,
        changes=tuple(changes),
        differing=tuple(differing),
    )


def merged(before: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """Launcher flags: those of the previous job, from its parsed command line, overridden by those given now.

    --tasks counts processes on the CPU, so --gpus given now also replaces it.
    """
    earlier, given = _given(before), _given(now)
    if str(given.get("gpus", 0)) != "0":
        earlier.pop("tasks", None)
    values = {**earlier, **given}
    return [*(f"--{name}={value}" for name, value in values.items() if value is not True),
            *(f"--{name}" for name, value in values.items() if value is True)]  # fmt: skip


def _given(arguments: Mapping[str, object]) -> dict[str, object]:
    not_flags = ("recipe", "run", "flags", "job")
    values = {k: v for k, v in arguments.items() if k not in not_flags and v is not None and v is not False}
    return {k: v for k, v in values.items() if v != "" or k in sites.EMPTIED}


def _settings(path: Path, job: Job) -> Path:
    """The file with the settings: as submitted, else as written by the job.

    A trial's settings were not known when it was submitted: only the job's own file has those that the search chose.
    """
    submitted = [path / job.config] if job.config and not trial.settings(path) else []
    for file in (*submitted, RunFolder(path).config):
        if reading.is_file(file):
            return file
    raise Refused(f"{folders.reference(path)} has no config.yaml, because its job never started: start it with its "
                  "original command")  # fmt: skip


def _refuse_if_open_or_done(path: Path, *, overwrites: bool) -> None:
    view, name = states.read([path], time.time())[0][0], folders.reference(path)
    if view.state in ("QUEUED", "RUNNING"):
        raise Refused(f"{name} is {view.state} (job {view.run.job}): `cancel {name}` first")
    if view.state == "DONE" and not overwrites:
        raise Refused(f"{name} is DONE: change a setting after `--`, or start over with -- --overwrite_output_dir")


def _new_folder(path: Path) -> Path:
    """A new folder next to `path`, named after it and the time; that of a sweep's run is next to the sweep."""
    of_sweep = folders.is_sweep(path.parent)
    parent = path.parent.parent if of_sweep else path.parent
    base = f"{path.parent.name}-{path.name}" if of_sweep else STAMP.sub("", path.name)
    name = f"{base}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder, number = parent / name, 1
    while folder.exists():
        number += 1
        folder = parent / f"{name}-{number}"
    return folder
