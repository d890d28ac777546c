"""Opens a run folder: for a new run, one to resume, or one that has already finished."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job import config as configuration
from job.config import Config
from job.errors import JobError, NeedsHuman, Pruned, Refused
from job.run import checkpoint_choice, latest, lock, manifest, trial
from job.run import folder as run_folder
from job.run.folder import RunFolder
from job.run.status import Status
from job.run.trial import Trial
from job.runtime import contract
from job.runtime.console import log


@dataclass(frozen=True)
class Opened:
    """An opened run folder.

    Attributes:
        folder: locked for this run.
        config: the requested settings; a requeued job ignores those that apply to the first start only.
        results: content of results.json if this run has already finished.
        resume_from: the checkpoint to resume from; None to start from the beginning.
        upload_is_due: the run has already finished, but its model is not yet in the requested hub repository.
        trial: the trial, if this run is one of a search; `config` has its settings.
        pruned: whether the run is a trial that was pruned and so has ended.
        latest_before: name of the run that runs/latest pointed to.
    """

    folder: RunFolder
    config: Config
    results: dict[str, Any] | None = None
    resume_from: Path | None = None
    upload_is_due: bool = False
    trial: Trial | None = None
    pruned: bool = False
    latest_before: str | None = None


def open_run(config: Config, name: str) -> Opened:
    """Lock the run folder and decide whether to start, resume or do nothing. Call on the main process only.

    Args:
        config: all settings.
        name: prefix of a new run folder's name, if neither output_dir nor the launcher gives a folder.

    Raises:
        Refused: the folder belongs to another run, or cannot be written.
        NeedsHuman: there are checkpoints but none can be used.
    """
    chosen = config.run.output_dir or os.environ.get(contract.RUN_FOLDER) or run_folder.make_new(name)
    folder = RunFolder(Path(chosen).absolute())
    config = run_folder.as_continued(folder, configuration.settled(config))
    try:
        if trial.was_pruned(folder.path):
            _finish_pruned(folder, config)
            return Opened(folder, config, pruned=True)
        own, config = trial.ask(folder.path, config)
        if run_folder.claim(folder, config):
            due = upload_is_due(folder, config)
            left = "uploading the model" if due else "nothing to do"
            log.info(f"{left}: the run in {folder.path} has already finished")
            results = json.loads(folder.results.read_text(encoding="utf-8"))
            return Opened(folder, config, results, upload_is_due=due, trial=own)
        resume_from, before = _resume_point(config, folder), latest.name(folder.path)
        return Opened(folder, config, resume_from=resume_from, trial=own, latest_before=before)
    except JobError as error:
        if isinstance(error, NeedsHuman):
            Status(folder, main=True).end(error)
        close_run(Opened(folder, config, latest_before=latest.name(folder.path)), error)
        raise


def close_run(opened: Opened, error: BaseException | None = None) -> None:
    """Unlock the folder. After a rejected request, remove it if we created it and it is empty."""
    if isinstance(error, Refused):
        run_folder.discard_if_new(opened.folder, opened.config, opened.latest_before)
    lock.release(opened.folder.path)


def _finish_pruned(folder: RunFolder, config: Config) -> None:
    """Write the end of a trial that was killed after it was pruned: removing its checkpoints may take long."""
    if lock.read_status(folder.path).get("state") == "DONE":
        return
    own, _ = trial.ask(folder.path, config)
    assert own is not None
    own.end(pruned=True)
    Status.of_finished(folder).end(Pruned("pruned"))
    lock.release(folder.path)


def repository(config: Config, folder: RunFolder) -> str:
    """The requested hub repository: owner/name, or a name in the account of the token."""
    return config.hub.hub_model_id or folder.path.name


def upload_is_due(folder: RunFolder, config: Config) -> bool:
    """Whether the model of a finished run should be uploaded and is not yet in the requested repository."""
    hub = config.hub
    if not hub.push_to_hub:
        return False
    upload = json.loads(folder.manifest.read_text(encoding="utf-8")).get(manifest.UPLOAD, {})
    there = (upload.get("repository"), upload.get("requested"))
    revision = hub.hub_revision or manifest.MAIN_BRANCH
    return repository(config, folder) not in there or upload["revision"] != revision


def _resume_point(config: Config, folder: RunFolder) -> Path | None:
    requested = config.run.resume_from_checkpoint
    if requested == "auto":
        return checkpoint_choice.newest(folder.checkpoints)
    return checkpoint_choice.chosen(folder.checkpoints, Path(requested))
