"""Supervisor of the local processes: forwards signals, returns the job's exit code, leaves nothing running.

A launcher such as accelerate loses both: it turns the job's exit code into 1, and a signal meant for the job ends only
the launcher. So the job runs in its own session, where a terminal's Ctrl-C does not reach it a second time; every
signal is sent to every descendant; and the job writes its exit code to a file. On Linux we adopt orphans, so that all
processes are waited for, which also makes this a proper PID 1. On other systems the launcher's process group is used.

Alternative considered: exec of the launcher, one process less, which would abandon orphans. The process that calls
`run` must have no other children: they would be waited for and signalled like the job's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from job.runtime.contract import EXIT_CODE_FILE
from job.runtime.environment import ALLOCATOR, ALLOCATOR_VARIABLE
from launch.local.log import copied
from launch.plan import Plan

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGQUIT)
POLL = 0.1
"""Seconds between two polls, the maximum delay of a signal."""
GRACE = 30.0
"""Seconds that a job has to end after its launcher has ended, and again after SIGTERM."""
PR_SET_CHILD_SUBREAPER = 36


def run(plan: Plan, grace: float = GRACE, log: Path | None = None) -> int:
    """Run `plan`, wait until all its processes have ended, and return the job's exit code.

    SIGTERM, SIGINT, SIGHUP, SIGUSR2 and SIGQUIT are forwarded; a second SIGINT kills at once. The job's output is
    copied to `log`.
    """
    _adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="muster-") as folder, received() as signals, copied(log) as output:
        report = Path(folder) / "exit-code"
        environ = {ALLOCATOR_VARIABLE: ALLOCATOR, **os.environ, **dict(plan.environment), EXIT_CODE_FILE: str(report)}
        launcher = subprocess.Popen(
            plan.argv,
            env=environ,
            cwd=plan.directory,
            start_new_session=True,
            stdout=output.stdout,
            stderr=output.stderr,
        )
        output.close()
        status = _watch(launcher.pid, signals, grace)
        launcher.returncode = os.waitstatus_to_exitcode(status)  # reaped here: Popen must not wait for it
        return exit_code(_reported(report), launcher.returncode)


def exit_code(reported: int | None, launcher: int) -> int:
    """The job's exit code, from what it reported and its launcher's return code (-n: killed by signal n).

    A reported success does not override a launcher that saw another rank fail. A failure without a report is a crash:
    only the job itself may return 2, 3 or 75.
    """
    if reported or (reported == 0 and launcher <= 0):
        return reported
    if launcher < 0:
        return 128 - launcher
    return launcher if launcher == 0 or launcher > 128 else 1


def _reported(report: Path) -> int | None:
    try:
        return int(report.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not written, or its writer was killed while writing
        return None


@contextlib.contextmanager
def received() -> Iterator[deque[int]]:
    """The signals that arrived, oldest first. A SIGHUP ignored by nohup stays ignored."""
    arrived: deque[int] = deque()
    numbers = [n for n in FORWARDED if n != signal.SIGHUP or signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, lambda n, _: arrived.append(n)) for number in numbers}
    try:
        yield arrived
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(launcher: int, signals: deque[int], grace: float) -> int:
    """Forward signals until `launcher` and all descendants have ended; returns the launcher's wait status.

    Orphans of a launcher that was killed by a forwarded signal got the same signal and may finish. Other orphans have
    `grace` seconds, then get SIGTERM, and after another `grace` seconds SIGKILL.
    """
    status: int | None = None
    passed_on: list[int] = []
    asked = killing = False
    due = float("inf")
    while True:
        while signals:
            passed_on.append(signals.popleft())
            killing |= passed_on.count(signal.SIGINT) > 1
            if not killing:
                _send(passed_on[-1], launcher)
        if time.monotonic() > due:
            asked, killing, due = True, asked, time.monotonic() + grace
            if not killing:
                _send(signal.SIGTERM, launcher)
        if killing:  # repeated, because new processes may have been forked meanwhile
            _send(signal.SIGKILL, launcher)
        ended = _reap()
        if launcher in ended:
            status = ended[launcher]
            signalled = os.WIFSIGNALED(status) and os.WTERMSIG(status) in passed_on
            due = float("inf") if signalled else time.monotonic() + grace
        if status is not None and not _family(launcher):
            return status
        time.sleep(POLL)


def _reap() -> dict[int, int]:
    """Process id -> wait status of all children that have ended, including adopted ones."""
    ended: dict[int, int] = {}
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            ended[found[0]] = found[1]
    return ended


def _send(number: int, launcher: int) -> None:
    for pid in _family(launcher):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _family(launcher: int) -> list[int]:
    """The running descendants of this process, and the launcher's process group.

    The group alone is not enough: torch gives each rank its own session.
    """
    table = _processes()
    family = {os.getpid()}
    size = 0
    while len(family) > size:
        size = len(family)
        family |= {pid for pid, (parent, group) in table.items() if parent in family or group == launcher}
    return sorted(family - {os.getpid()})


def _processes() -> dict[int, tuple[int, int]]:
    """Every running process, without zombies: process id -> (parent, process group)."""
    if not sys.platform.startswith("linux"):
        return _processes_of_ps()
    table = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # ended since
                # "pid (name) state parent group ...", where the name may hold anything
                fields = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if fields[0] not in "ZX":
                    table[int(folder.name)] = (int(fields[1]), int(fields[2]))
    return table


def _processes_of_ps() -> dict[int, tuple[int, int]]:
    """The same without /proc, by ps, which is excluded."""
    with subprocess.Popen(["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="], stdout=subprocess.PIPE, text=True) as ps:
        rows = [line.split() for line in ps.communicate()[0].splitlines()]
    return {int(r[0]): (int(r[1]), int(r[2])) for r in rows if int(r[0]) != ps.pid and not r[3].startswith("Z")}


def _adopt_orphans() -> None:
    """Become the parent of descendants whose parent ends, if the system supports it."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
