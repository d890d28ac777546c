"""A run that has written results.json is complete, or is completed by the next start."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from job import config
from job.report import summary
from job.report.html import writing
from job.run.folder import RunFolder
from job.runtime import files
from tests.support import reports
from tests.support.reports import Made


@pytest.fixture
def killed(tmp_path: Path) -> RunFolder:
    """A run that was killed after results.json; somebody had drawn its report earlier."""
    folder = reports.finished(tmp_path / "run", Made())
    files.write_json(folder.status, {"state": "RUNNING", "step": 100, "steps": 100, "reason": "", "owner": "box:1"})
    (folder.checkpoints / "step-00000100").mkdir(parents=True)
    folder.report.write_text("unfinished")
    return folder


def test_a_run_killed_after_its_results_is_completed_by_the_next_start(killed: RunFolder) -> None:
    summary.complete(config.from_dict({}), killed)
    status = json.loads(killed.status.read_text())
    assert (status["state"], status["step"], status["steps"]) == ("DONE", 100, 100)
    assert not killed.checkpoints.exists()
    assert killed.report.read_text().startswith("<!")


def test_checkpoints_are_kept_if_a_number_to_keep_is_given(killed: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "write_at_end", lambda _: None)
    summary.complete(config.from_dict({"save_total_limit": 1}), killed)
    assert (killed.checkpoints / "step-00000100").is_dir()
    assert json.loads(killed.status.read_text())["state"] == "DONE"


def test_a_run_that_is_done_is_left_as_it_is(killed: RunFolder) -> None:
    files.write_json(killed.status, {"state": "DONE"})
    before = killed.status.read_text()
    summary.complete(config.from_dict({}), killed)
    assert killed.status.read_text() == before
    assert (killed.checkpoints / "step-00000100").is_dir() and killed.report.read_text() == "unfinished"
