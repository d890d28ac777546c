"""status.json has the state of a run, its heartbeat and its result."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from job.errors import NeedsHuman, Stopped
from job.run import lock
from job.run.folder import RunFolder
from job.run.status import Status


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path)


def held(folder: RunFolder) -> dict[str, str]:
    return json.loads(folder.status.read_text())


def test_status_is_running_then_done(folder: RunFolder) -> None:
    status = Status(folder, main=True)
    with status.running():
        assert held(folder).items() >= {"state": "RUNNING", "step": 0, "steps": None, "owner": lock.owner()}.items()
        status.step, status.steps = 7, 9
    assert held(folder).items() >= {"state": "DONE", "step": 7, "steps": 9, "reason": ""}.items()


def test_the_heartbeat_continues_during_a_long_step(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.02)
    status = Status(folder, main=True)
    with status.running():
        seen, deadline = {held(folder)["heartbeat"]}, time.monotonic() + 60
        status.step = 3
        while len(seen) < 4 and time.monotonic() < deadline:
            time.sleep(0.005)
            seen.add(held(folder)["heartbeat"])
        assert len(seen) >= 4
        assert held(folder).items() >= {"state": "RUNNING", "step": 3}.items()
    last = held(folder)
    time.sleep(0.2)
    assert held(folder) == last, "no heartbeat after the end"


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (Stopped("SIGTERM"), "STOPPED", str(Stopped("SIGTERM"))),
        (NeedsHuman("none can be used"), "NEEDS_HUMAN", "NeedsHuman: none can be used"),
        (RuntimeError("many\n  lines"), "FAILED", "RuntimeError: many lines"),
        (KeyboardInterrupt(), "FAILED", "KeyboardInterrupt: "),
    ],
)
def test_status_says_in_one_line_why_a_run_ended(
    error: BaseException, state: str, reason: str, folder: RunFolder
) -> None:
    with pytest.raises(type(error)), Status(folder, main=True).running():
        raise error
    assert (held(folder)["state"], held(folder)["reason"]) == (state, reason)


def test_a_long_reason_is_truncated(folder: RunFolder) -> None:
    with pytest.raises(RuntimeError), Status(folder, main=True).running():
        raise RuntimeError("x" * 1000)
    assert len(held(folder)["reason"]) == 500


def test_only_the_main_process_writes_the_status(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT_SECONDS", 0.01)
    with Status(folder, main=False).running():
        time.sleep(0.1)
    assert list(folder.path.iterdir()) == []


def test_a_failed_status_write_keeps_the_old_status(tmp_path: Path) -> None:
    """A full disk must not end a run for the sake of its heartbeat."""
    folder = RunFolder(tmp_path / "gone")
    with Status(folder, main=True).running():
        pass
    assert not folder.path.exists()
