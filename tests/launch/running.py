"""Real processes for the tests: a supervisor in a process of its own, and a search for what it left running.

Every process a test starts inherits MARK with a value of the test's own, so that a survivor is found regardless of its
parent, and tests may run in parallel.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MARK = "MUSTER_TEST_MARK"
SUPERVISE = """
import sys
from pathlib import Path
from launch import supervisor
from launch.plan import Plan
sys.exit(supervisor.run(Plan(tuple(sys.argv[2:]), (), Path.cwd()), grace=float(sys.argv[1])))
"""


@dataclass(frozen=True)
class Supervised:
    """A supervisor that a test has started."""

    process: subprocess.Popen[str]
    mark: str

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, timeout: float = 300) -> tuple[int, str]:
        """Exit code and stderr of the supervisor, once it has ended; none of its processes may be left."""
        _, stderr = self.process.communicate(timeout=timeout)
        assert marked(self.mark) == []
        return self.process.returncode, stderr


@contextmanager
def supervised(
    argv: Sequence[str], folder: Path, *, grace: float = 30, environ: Mapping[str, str] | None = None
) -> Iterator[Supervised]:
    """Start `argv` under a supervisor in `folder`; processes that still run at the end are killed."""
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISE, str(grace), *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), MARK: mark, **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Supervised(process, mark)
    finally:
        for pid in marked(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.communicate()


def marked(mark: str) -> list[int]:
    """The living processes that carry `mark` in their environment."""
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    pids.append(int(folder.name))
    return pids


def command_line(pid: int) -> bytes:
    """Program and arguments of a process, each ended by a zero byte; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def wait_until(condition: Callable[[], bool], timeout: float = 300) -> None:
    """Return once `condition` holds; fail after `timeout` seconds."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)
