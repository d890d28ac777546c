"""Signal handlers that only record the signal; callers poll `reason()` where all processes can act on it together.

A handler that saved by itself would stop one process in the middle of a step while the others wait in a collective.
They are recorded in the process that installed the handlers, never in one that it forked. A SIGHUP, of a lost
connection, is recorded unless nohup ignores it.
Standard library only: the handlers are installed before torch is imported, which takes seconds in which a signal would
kill the process.

The death of the launcher counts as a signal: `accelerate launch` dies of SIGTERM and leaves its processes running.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import FrameType
from typing import TypeVar

from job.errors import Stopped

T = TypeVar("T")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGHUP)
GRACE_SECONDS = 2.0
"""Time for a busy process to reach the place where it polls."""
LAUNCHER_GONE = 1000
TIME_LIMIT = 1001
REASONS = {LAUNCHER_GONE: "the end of its launcher", TIME_LIMIT: "--max_minutes"}


@dataclass
class _Record:
    """The signals that this process has received."""

    pid: int = 0
    parent: int = 0
    asked: int = 0
    interrupts: int = 0
    raising: bool = False
    started: float = field(default_factory=time.monotonic)


_record = _Record()
_forking = threading.local()


def install() -> None:
    """Install the handlers, in the main thread of the process that trains. Idempotent."""
    if _record.pid == os.getpid():
        return
    forked = _record.pid != 0  # from a process that had them: it has the hooks
    _record.pid, _record.parent = os.getpid(), os.getppid()
    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _received)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # our launchers block them while Python starts
    if not forked:
        os.register_at_fork(before=_hold_sigterm, after_in_parent=_release_sigterm, after_in_child=_restore_in_child)


def ignore() -> None:
    """Ignore the signals: nothing is left to stop, and a signal must not kill the interpreter while it exits."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def seconds() -> float:
    """Seconds since this process started, by a monotonic clock."""
    return time.monotonic() - _record.started


def reason() -> int:
    """Why this process should stop: a signal's number, LAUNCHER_GONE, or 0."""
    watched = _record.pid == os.getpid() and has_launcher(os.environ)
    if _record.asked == 0 and watched and os.getppid() != _record.parent:
        _record.asked = LAUNCHER_GONE
    return _record.asked


def in_words(number: int) -> str:
    """The name of a `reason`."""
    return REASONS.get(number) or signal.Signals(number).name


def interruptible(work: Callable[[], T]) -> Callable[[], T]:
    """Wrap `work` so that a signal interrupts it. For long work without collectives that has nothing to save.

    It raises Stopped on a signal, also if it fails after one: its child processes may have died of the same signal.
    """

    def run() -> T:
        raise_if_stopping()
        _record.raising = True
        try:
            return work()
        except Exception:
            raise_if_stopping()
            raise
        finally:
            _record.raising = False

    return run


@contextlib.contextmanager
def stop_while_waiting_for_peers(end: Callable[[Stopped], object]) -> Iterator[None]:
    """Inside this context a stop calls `end` and ends this process, even if it waits in a library that blocks signals.

    For the rendezvous: a process that never arrives is waited for until a timeout, and there is nothing to save yet. A
    thread does it: the interpreter writes the number of each signal to a socket (1), which the thread waits on (2)
    while it watches the launcher (3); if the processes do not meet within GRACE_SECONDS (4), it ends this one (5).
    """
    if _record.pid != os.getpid():
        yield
        return
    received, wakeup = socket.socketpair()
    wakeup.setblocking(False)
    before = signal.set_wakeup_fd(wakeup.fileno())  # 1
    met = threading.Event()

    def watch() -> None:
        while not met.is_set():
            numbers = received.recv(1) if select.select([received], [], [], 0.5)[0] else b""  # 2
            number = numbers[0] if numbers else reason()  # 3
            if number and not met.wait(GRACE_SECONDS):  # 4
                end(Stopped(in_words(number)))
                os._exit(Stopped.exit_code)  # 5
        received.close()

    threading.Thread(target=watch, name="wait-for-peers", daemon=True).start()
    try:
        yield
    finally:
        met.set()
        signal.set_wakeup_fd(before)
        wakeup.close()


def raise_if_stopping() -> None:
    """Raise Stopped if this process should stop. For places where there is nothing to save."""
    if reason():
        raise Stopped(in_words(reason()))


def _received(number: int, _: FrameType | None) -> None:
    if os.getpid() != _record.pid:
        return
    _record.interrupts += number == signal.SIGINT
    if _record.interrupts > 1:  # a second Ctrl-C: do not wait for a checkpoint
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    _record.asked = _record.asked or number
    if _record.raising:
        _record.raising = False
        raise Stopped(in_words(number))


def _hold_sigterm() -> None:
    """Before a fork: block SIGTERM until the child has its own handlers.

    Python discards in a new child what its inherited handlers have received. Such a worker would outlive the SIGTERM
    with which its pool ends it, and the pool would wait for it forever.
    """
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _release_sigterm() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _restore_in_child() -> None:
    """In a forked child: signals for the job are handled by the parent. A pool ends its workers with SIGTERM.

    SIGHUP keeps its handler, which does nothing here: ignored, it would stay so where the child installs its own.
    """
    if os.getppid() == _record.pid:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _release_sigterm()


def has_launcher(environ: Mapping[str, str]) -> bool:
    """Whether accelerate or torchrun started this process, judging by its environment variables.

    The death of another parent counts for nothing: the end of a shell does not end the jobs that it started.
    """
    return "LOCAL_RANK" in environ or "ACCELERATE_MIXED_PRECISION" in environ
