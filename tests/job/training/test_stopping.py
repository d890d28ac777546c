"""What is decided at the end of a step, on one process; test_resume.py shows with real runs that several agree."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from job.config import Run
from job.errors import Stopped
from job.runtime import signals
from job.training import stopping
from job.training.stopping import StopVote
from tests.support.launch import ROOT


def alone(**run: Any) -> StopVote:
    return StopVote(Run(**run), SimpleNamespace(is_main_process=True, num_processes=1))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of the clock, to be set."""
    now = [1000.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(signals, "seconds", lambda: now[0] - 1000)
    monkeypatch.setattr(stopping.faulthandler, "dump_traceback_later", lambda *_, **__: None)
    return now


def poll_at(vote: StopVote, clock: list[float], *seconds: float) -> list[bool]:
    answers = []
    for second in seconds:
        clock[0] = 1000 + second
        answers.append(vote.poll())
    return answers


def test_a_checkpoint_is_due_when_its_minutes_have_passed_since_the_last(clock: list[float]) -> None:
    vote = alone(save_minutes=1)
    assert poll_at(vote, clock, 1, 59, 61) == [False, False, True]
    vote.saved(2.0)
    assert poll_at(vote, clock, 62, 120, 122) == [False, False, True]


def test_a_time_limit_reserves_twice_the_longest_step_and_save(clock: list[float]) -> None:
    vote = alone(max_minutes=1, save_minutes=None)
    vote.saved(3.0)
    poll_at(vote, clock, 10, 20, 30)
    with pytest.raises(Stopped, match=r"^stopped by --max_minutes before"):
        poll_at(vote, clock, 35)


def test_short_steps_use_almost_all_of_the_time_limit(clock: list[float]) -> None:
    vote = alone(max_minutes=1, save_minutes=None)
    assert not any(poll_at(vote, clock, *range(1, 59)))
    with pytest.raises(Stopped):
        poll_at(vote, clock, 59)


def test_a_signal_is_named_even_after_the_time_limit(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "reason", lambda: signal.SIGTERM.value)
    with pytest.raises(Stopped, match=r"^stopped by SIGTERM "):
        poll_at(alone(max_minutes=1), clock, 3600)


def test_a_slow_disk_has_no_time_limit_but_the_step_after_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[float] = []
    monkeypatch.setattr(
        stopping.faulthandler, "dump_traceback_later", lambda seconds, **_: armed.__setitem__(slice(None), [seconds])
    )
    monkeypatch.setattr(stopping.faulthandler, "cancel_dump_traceback_later", armed.clear)
    vote = alone(step_timeout_minutes=2)
    vote.poll()
    assert armed == [120]
    with vote.untimed():
        assert armed == []
    assert armed == [120]


def test_the_watchdog_ends_only_a_process_that_hangs_and_dumps_its_stack() -> None:
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from types import SimpleNamespace
from job.training.stopping import StopVote
from job.config import Run
vote = StopVote(Run(step_timeout_minutes=0.02), SimpleNamespace(is_main_process=True, num_processes=1))
vote.poll()
if sys.argv[1] == "done": vote.close()
def hang(): time.sleep(3)
hang()
"""
    for how, expected in {"done": 0, "hangs": 1}.items():
        command = [sys.executable, "-c", code, how]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == expected, done.stderr
        assert ("in hang" in done.stderr) == (how == "hangs")
