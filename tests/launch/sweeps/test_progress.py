"""Which runs of a sweep are started again, and which are left alone."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from job import config
from job.runtime import files
from launch.records import Record
from launch.runs import processes
from launch.sweeps import progress
from launch.sweeps import sweep as sweeps
from launch.sweeps.sweep import Sweep


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A sweep of two runs; the second one does not exist. There is no Slurm here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    return sweeps.grid(config.load_recipe("demo"), "demo", {"seed": (1, 2)})


def ended() -> int:
    """The id of a process that has ended."""
    with subprocess.Popen(["/bin/true"]) as process:
        return process.pid


def started(sweep: Sweep, state: str, **record: Any) -> Path:
    """The first run, which has just written its heartbeat."""
    run = sweep.elements[0].run
    now = {"reason": "", "step": 3, "heartbeat": files.utc_now("milliseconds")}
    (run / "jobs" / "box-1").mkdir(parents=True)
    Record("local", "box-1", [], config="config.yaml", directory=".", **record).write(run)
    files.write_json(run / "status.json", {"state": state, **now})
    return run


def to_start(sweep: Sweep) -> list[int]:
    return [element.number for element in progress.read(sweep, "").to_start]


def test_a_running_run_is_left_alone_if_its_process_runs(two: Sweep) -> None:
    started(two, "RUNNING", pid=os.getpid(), process_start=processes.started(os.getpid()))
    assert to_start(two) == [1]


def test_a_run_killed_a_moment_ago_is_started_again_in_spite_of_its_heartbeat(two: Sweep) -> None:
    started(two, "RUNNING", pid=ended(), process_start=processes.started(os.getpid()))
    assert to_start(two) == [0, 1]


def test_another_process_with_its_id_does_not_keep_a_run_from_being_started_again(two: Sweep) -> None:
    started(two, "RUNNING", pid=os.getpid(), process_start="an earlier one")
    assert to_start(two) == [0, 1]


def test_the_heartbeat_of_a_run_on_another_host_counts(two: Sweep) -> None:
    assert socket.gethostname() != "elsewhere"
    started(two, "RUNNING", pid=ended(), process_start="unknown here", host="elsewhere")
    assert to_start(two) == [1]


@pytest.mark.parametrize(
    ("state", "numbers"),
    [("DONE", [1]), ("NEEDS_HUMAN", [1]), ("STOPPED", [0, 1]), ("FAILED", [0, 1]), ("CANCELLED", [0, 1])],
)
def test_runs_that_ended_without_a_result_are_started_again(state: str, numbers: list[int], two: Sweep) -> None:
    started(two, state, pid=ended(), process_start="an earlier one")
    assert to_start(two) == numbers
