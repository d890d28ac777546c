"""The bound of restarts, and the worker's start; the rest of it runs on a cluster, in tests/cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.runtime import contract, signals
from launch.slurm.worker import MAX_IDLE_RESTARTS, Stop, leave_marker, next_record

ROOT = Path(__file__).parents[3]
SHOW = """
import json, signal, sys
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
print(json.dumps([sorted(map(int, blocked)), sys.argv[1:], sys.path[0]]))
"""


def restarts(steps: list[int]) -> int:
    """How often a job is restarted that stops at these steps, one start after the other."""
    record = None
    for count, step in enumerate(steps):
        record = next_record(record, Stop(step, count))
        if record is None:
            return count
    return len(steps)


def test_three_restarts_without_progress_end_the_job() -> None:
    assert restarts([0] * 10) == MAX_IDLE_RESTARTS == 3
    assert restarts([50, *[50] * 10]) == 3


def test_progress_resets_the_count_of_restarts() -> None:
    assert restarts([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]) == 12
    assert restarts([0, 0, 0, 1, 1, 1, 1, 2]) == 6


@given(st.lists(st.integers(0, 5), max_size=40))
def test_a_job_is_never_restarted_more_than_three_times_without_progress(steps: list[int]) -> None:
    done = steps[: restarts(steps)]
    best, idle = -1, 0
    for step in done:
        best, idle = (step, 0) if step > best else (best, idle + 1)
        assert idle < 3


def test_restarts_by_slurm_count_too() -> None:
    """A start that was killed, its node lost, leaves no stop; it made no progress either."""
    assert next_record(Stop(5, 1), Stop(5, 4)) is None
    assert next_record(Stop(5, 1), Stop(6, 4)) == Stop(6, 4)


@pytest.mark.parametrize("reasons", [("SIGTERM", None), (None, "SIGTERM")])
def test_the_marker_names_the_signal_of_slurm_in_any_order_of_ranks(
    reasons: tuple[str | None, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare SIGTERM is requeued only after a preemption: the batch script must know that it was one."""
    folder = tmp_path / "run" / "jobs" / "7"
    folder.mkdir(parents=True)
    for reason in reasons:
        number = 0 if reason is None else signal.Signals[reason]
        monkeypatch.setattr(signals, "reason", lambda number=number: number)
        assert leave_marker(folder, 0) == 0
    assert (folder / contract.REQUEUE).read_text(encoding="utf-8") == "SIGTERM\n"


def test_the_worker_runs_the_module_with_signals_blocked(tmp_path: Path) -> None:
    (tmp_path / "show.py").write_text(SHOW, encoding="ascii")
    words = [sys.executable, "-P", str(ROOT / "launch" / "slurm" / "worker.py"), "-u", "-m", "show", "folder"]
    environ = {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(words, cwd=tmp_path, env=environ, capture_output=True, text=True, check=True)
    assert done.stdout == f'[[2, 12, 15], ["folder"], "{ROOT}"]\n'
