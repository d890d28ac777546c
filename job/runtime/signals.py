"""Signals -> a flag. What is done about it is decided elsewhere, at a place where all processes can do the same.

A handler that saves by itself stops one process in the middle of a step while the others wait for it in a collective.
So SIGTERM, SIGINT and SIGUSR2 only leave word here, in the process that installed the handlers and never in one it
forked, and `reason` tells it to whoever asks at the end of a step. Standard library only: the handlers stand before
torch is imported, which takes seconds in which a signal would kill.

A launcher that is gone counts as a signal: `accelerate launch` dies of SIGTERM and leaves its processes to nobody.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar

from job.errors import Stopped

T = TypeVar("T")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
GRACE_SECONDS = 2.0
"""In which a process that was only busy gets to where it heeds the signal by itself."""
LAUNCHER_GONE = 1000
TIME_LIMIT = 1001
REASONS = {LAUNCHER_GONE: "its launcher is gone", TIME_LIMIT: "--max_minutes is about to pass"}


@dataclass
class _Word:
    """What this process has heard."""

    pid: int = 0
    parent: int = 0
    asked: int = 0
    interrupts: int = 0
    raising: bool = False
    started: float = field(default_factory=time.monotonic)


_word = _Word()


def install() -> None:
    """Take the signals over, in the main thread of the process that trains. Doing it twice is doing it once."""
    if _word.pid == os.getpid():
        return
    _word.pid, _word.parent = os.getpid(), os.getppid()
    for number in SIGNALS:
        signal.signal(number, _heard)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # held back while Python started
    os.register_at_fork(after_in_child=_leave_to_parent)


def ignore() -> None:
    """Nothing is left to stop: from here to its end, where the interpreter drops handlers, a signal must not kill."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def seconds() -> float:
    """Seconds since this process started to listen; a clock that is set back does not matter."""
    return time.monotonic() - _word.started


def reason() -> int:
    """Why this process should stop: a signal's number, LAUNCHER_GONE, or 0."""
    if _word.asked == 0 and _word.pid == os.getpid() and _has_launcher() and os.getppid() != _word.parent:
        _word.asked = LAUNCHER_GONE
    return _word.asked


def in_words(number: int) -> str:
    """`reason` for people."""
    return REASONS.get(number) or signal.Signals(number).name


def at_once(work: Callable[[], T]) -> Callable[[], T]:
    """`work`, ended by a signal where it arrives: for what may take long, holds nothing worth saving and no collective.

    It raises Stopped on a signal, and where it fails after one: processes of its own may have died of the same signal.
    """

    def interruptible() -> T:
        heed()
        _word.raising = True
        try:
            return work()
        except Exception:
            heed()
            raise
        finally:
            _word.raising = False

    return interruptible


@contextlib.contextmanager
def leaving(end: Callable[[Stopped], object]) -> Iterator[None]:
    """Within, a stop ends this process, after `end`, even where it waits in a library that hears no signal.

    For the time until the processes have met: one that never comes is waited for until a time-out, and a launcher that
    died meanwhile would leave the others waiting. There is nothing to save yet.
    """
    if _word.pid != os.getpid():
        yield
        return
    ours, librarys = socket.socketpair()
    librarys.setblocking(False)
    before = signal.set_wakeup_fd(librarys.fileno())
    met = threading.Event()

    def watch() -> None:
        while not met.is_set():
            told = ours.recv(1) if select.select([ours], [], [], 0.5)[0] else b""
            heard = told[0] if told else reason()
            if heard and not met.wait(GRACE_SECONDS):
                end(stopped(heard))
                os._exit(Stopped.exit_code)
        ours.close()

    threading.Thread(target=watch, name="leaving", daemon=True).start()
    try:
        yield
    finally:
        met.set()
        signal.set_wakeup_fd(before)
        librarys.close()


def heed() -> None:
    """Raises Stopped if this process is to stop: for a place where there is nothing to save."""
    if reason():
        raise stopped(reason())


def stopped(number: int) -> Stopped:
    return Stopped(f"{in_words(number)}, before a step was done; the same command starts again")


def _heard(number: int, _: FrameType | None) -> None:
    if os.getpid() != _word.pid:
        return
    _word.interrupts += number == signal.SIGINT
    if _word.interrupts > 1:  # whoever asks twice does not want to wait for a checkpoint
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    _word.asked = _word.asked or number
    if _word.raising:
        _word.raising = False
        raise stopped(number)


def _leave_to_parent() -> None:
    """In a forked child: what is meant for the job is its parent's to act on. SIGTERM is how a pool ends its own."""
    if os.getppid() == _word.pid:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _has_launcher() -> bool:
    """Whether the parent is one: a shell that ends does not end what it left running."""
    return "LOCAL_RANK" in os.environ or "ACCELERATE_MIXED_PRECISION" in os.environ
