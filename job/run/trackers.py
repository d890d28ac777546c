"""The trackers of --report_to: TensorBoard, wandb and others, which show a run while it trains.

The record of a run is its metrics.jsonl. A tracker that fails (a full disk, a server that is down) ends no run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, filter_trackers

from job.errors import Refused
from job.run.folder import RunFolder
from job.runtime.console import log

TENSORBOARD = "tensorboard"
PROJECT = "muster"
"""Name of the project on a tracker's server, unless the user's environment names another."""
OWN_PROJECTS = {"wandb": "WANDB_PROJECT"}
"""The variable for the name of the project, of trackers whose argument would otherwise override it."""


def start(names: Sequence[str], accelerator: Accelerator, folder: RunFolder, first_step: int | None = None) -> None:
    """Start the trackers that `names` asks for; they write to the run folder or to their own servers.

    As in Transformers, `none` is ignored and `all` means every tracker whose package is installed.

    Args:
        names: values of --report_to.
        accelerator: gets the trackers.
        folder: of the run.
        first_step: the step after the checkpoint that the run resumes from: TensorBoard removes what was recorded from
            there on. None: a new run.

    Raises:
        Refused: a tracker is unknown to Accelerate, its package is missing, which Accelerate ignores silently, or it
            cannot be started.
    """
    names = [name for name in names if name != "none"]
    accelerator.project_configuration.set_directories(str(folder.path))
    named = [name for name in names if name != "all"]
    try:
        found = filter_trackers(named, str(folder.path))
    except ValueError as error:
        raise Refused(f"--report_to: {' '.join(str(error).split())}") from error
    missing = set(named) - {str(tracker) for tracker in found}
    if missing:
        raise Refused(f"--report_to {min(missing)}: the package is not installed: pip install {min(missing)}")
    wanted = filter_trackers(["all"], str(folder.path)) if "all" in names else found
    accelerator.log_with = [_made(str(tracker), folder, first_step) for tracker in wanted]
    if accelerator.is_main_process:
        is_new = first_step is None
        accelerator.trackers = [tracker for tracker in accelerator.log_with if _starts(tracker, required=is_new)]


def _starts(tracker: GeneralTracker, *, required: bool) -> bool:
    """Start a tracker; returns whether that worked.

    Raises:
        Refused: it did not, and it is `required`: by a new run. One that is resumed continues without it.
    """
    try:
        tracker.start()
    except Exception as error:  # a tracker's client may raise anything
        failure = f"--report_to {tracker.name} cannot be started ({_reason(error)})"
        if required:
            raise Refused(f"{failure}: set it up, or leave it out") from error
        log.warning(f"{failure}: metrics.jsonl has all records")
        return False
    return True


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _made(name: str, folder: RunFolder, first_step: int | None) -> GeneralTracker:
    """A tracker, not yet started: TensorBoard in its folder of the run, others in a project on their servers."""
    kind = LOGGER_TYPE_TO_CLASS[name]
    if name == TENSORBOARD:
        return kind(TENSORBOARD, str(folder.path), purge_step=first_step)
    project = os.environ.get(OWN_PROJECTS.get(name, ""), "") or PROJECT
    own = {"wandb": {"name": folder.path.name}, "mlflow": {"run_name": folder.path.name}}
    place = (str(folder.path),) if kind.requires_logging_directory else ()
    return kind(project, *place, **own.get(name, {}))


class Trackers:
    """The trackers of an accelerator; an error of one becomes a warning, once."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._failed: set[str] = set()

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._each(lambda tracker: tracker.log(dict(values), step=step))

    def finish(self) -> None:
        """Let all trackers write what they hold; none is used any more."""
        self._each(lambda tracker: tracker.finish())
        self._accelerator.trackers = []

    def _each(self, call: Callable[[Any], Any]) -> None:
        for tracker in self._accelerator.trackers:
            try:
                call(tracker)
            except Exception as error:  # noqa: BLE001  a tracker's client may raise anything
                if tracker.name not in self._failed:
                    log.warning(f"--report_to {tracker.name} fails ({_reason(error)}): metrics.jsonl has all records")
                self._failed.add(tracker.name)
