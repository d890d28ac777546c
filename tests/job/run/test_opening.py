"""What a start finds in a run folder that another process left, and what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from job import config
from job.errors import Pruned, Refused
from job.run import latest, lock, opening, trial
from job.run.folder import RunFolder
from job.run.space import Range
from job.run.status import Status


def pruned_trial(sweep: Path) -> RunFolder:
    """A trial whose process was killed right after the search had recorded that it is pruned."""
    folder = RunFolder(sweep / "0")
    folder.path.mkdir(parents=True)
    trial.prepare(folder.path, {"learning_rate": Range(1e-5, 1e-3)}, sweep)
    started, _ = trial.ask(folder.path, config.Config())
    lock.release(folder.path)
    assert started is not None
    started.end(pruned=True)
    running = Status(folder, main=True)
    running.step, running.steps = 5, 15
    running.write("RUNNING")
    (folder.checkpoints / "step-00000005").mkdir(parents=True)
    return folder


def recorded(folder: RunFolder) -> dict[str, Any]:
    return json.loads(folder.status.read_text(encoding="utf-8"))


def test_the_end_of_a_pruned_trial_is_written_by_the_next_start(tmp_path: Path) -> None:
    folder = pruned_trial(tmp_path)
    opened = opening.open_run(config.from_dict({"output_dir": str(folder.path)}), "run")
    assert opened.pruned
    assert recorded(folder).items() >= {"state": "DONE", "reason": "pruned", "step": 5, "steps": 15}.items()
    assert not folder.checkpoints.exists() and folder.path not in lock._held


def test_a_pruned_trial_whose_end_is_written_is_left_alone(tmp_path: Path) -> None:
    folder = pruned_trial(tmp_path)
    Status.of_finished(folder).end(Pruned("pruned"))
    before = recorded(folder)
    assert opening.open_run(config.from_dict({"output_dir": str(folder.path)}), "run").pruned
    assert recorded(folder) == before


def test_a_run_that_is_rejected_after_it_has_started_leaves_latest_at_the_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    good = opening.open_run(config.Config(), "good")
    latest.point_to(good.folder.path)
    rejected = opening.open_run(config.Config(), "rejected")
    latest.point_to(rejected.folder.path)
    opening.close_run(rejected, Refused("--class_weights names no class of step 3"))
    assert (tmp_path / "runs" / "latest").resolve() == good.folder.path
    assert not rejected.folder.path.exists()
    opening.close_run(good)
