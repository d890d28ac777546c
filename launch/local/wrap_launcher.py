"""Runs a launcher's module (`accelerate.commands.launch`, `torch.distributed.run`) without the launcher's own output.

    python -P launch/local/wrap_launcher.py torch.distributed.run --standalone --nproc-per-node 2 job/train.py mrpc

If a job fails, both print a traceback or report of their own, which buries the job's one line, and exit with code 1.
Here the launcher's output is dropped, its exit code is the job's, and a line is printed only if the job was killed and
so could not print its own. Errors of the launcher itself keep their traceback.

Both also handle signals badly: accelerate dies and leaves the job running; torch forwards SIGTERM, kills 30 seconds
later, and dies of SIGUSR2. The supervisor signals every process itself, so once the job runs the launcher only has to
survive. It runs in a thread, where torch installs no handlers. Alternatives considered: silencing stderr, which is also
the job's, and patching either package.

Standard library only, nothing of this project: it runs in the launcher's process.
"""

from __future__ import annotations

import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

OF_ANOTHER_LAUNCHER = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Variables by which the processes of a launcher find each other."""
FLAGS_OF_TORCHRUN = "PET_"
"""Prefix of variables that torch.distributed.run reads as flags: PET_NNODES=2 makes it wait for a second node."""
SURVIVED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
FATAL_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)


def main(argv: Sequence[str]) -> int:
    """Run module `argv[0]` with the rest as its arguments; returns the exit code of the job."""
    _survive_signals()
    _remove_variables()
    logging.disable(logging.ERROR)
    sys.argv = list(argv)
    with ThreadPoolExecutor(1) as thread:
        launcher = thread.submit(runpy.run_module, argv[0], run_name="__main__", alter_sys=True)
        try:
            launcher.result()
        except subprocess.CalledProcessError as error:  # accelerate, one process
            return _report({0: error.returncode})
        except Exception as error:
            if type(error).__name__ != "ChildFailedError":
                raise
            return _report(_by_time(error))
    return 0


def _survive_signals() -> None:
    """Survive signals once the job runs, which is signalled too; before that, end as usual."""
    launched = threading.Event()

    def notice(event: str, details: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and details[0] == sys.executable:
            launched.set()

    def handle(number: int, _: object) -> None:
        if not launched.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    sys.addaudithook(notice)
    for number in SURVIVED:  # a handler, not SIG_IGN: the job would inherit that
        signal.signal(number, handle)


def _remove_variables() -> None:
    """Remove what is left over from another launcher: one process would wait for others that nobody starts."""
    for name in tuple(os.environ):
        if name in OF_ANOTHER_LAUNCHER or name.startswith(FLAGS_OF_TORCHRUN):
            del os.environ[name]


def _by_time(error: Any) -> dict[int, int]:
    """Rank -> exit code of the failed processes in torch's ChildFailedError, in order of failure."""
    failures = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
    return {rank: failure.exitcode for rank, failure in failures}


def _report(codes: dict[int, int]) -> int:
    """Print which rank was killed, if any; returns the exit code of the first failure, as a shell would."""
    for rank, code in codes.items():
        if -code in FATAL_SIGNALS:
            hint = ": the machine may be out of memory" if -code == signal.SIGKILL else ""
            print(f"error: rank {rank} was killed by {signal.Signals(-code).name}{hint}", file=sys.stderr, flush=True)
            return 128 - code
    first = next(iter(codes.values()))
    return first if first >= 0 else 128 - first


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
