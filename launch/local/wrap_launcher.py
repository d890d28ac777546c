"""Run a launcher's module (`accelerate.commands.launch`, `torch.distributed.run`) so that only the job is heard.

    python -P launch/local/wrap_launcher.py torch.distributed.run --standalone --nproc-per-node 2 job/train.py mrpc

Both answer a job's failure with a traceback or report of their own, under which the job's one line is lost, and with
exit code 1. Here the launcher's part is dropped, its exit code is the job's, and a line is written only where the job
could not speak: it was killed. What the launcher itself does wrong keeps its traceback.

Both also misjudge signals: accelerate dies and leaves the job behind; torch passes SIGTERM on, kills 30 seconds later,
and dies of SIGUSR2. The supervisor signals every process itself, so once the job runs its launcher has only to stay. It
runs in a thread, where torch installs no handlers. Refused: silencing stderr, which is also the job's, and patching
either package.

Standard library only, and nothing of this project: it runs where the launcher runs.
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

OUTLIVED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
FATAL_SIGNALS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE)


def main(argv: Sequence[str]) -> int:
    """Run module `argv[0]` with the rest as its arguments; the exit code of the job it launched."""
    _outlive_signals()
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


def _outlive_signals() -> None:
    """Stay when signalled, once a job is there that was signalled too; before that, end as usual."""
    launched = threading.Event()

    def notice(event: str, details: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and details[0] == sys.executable:
            launched.set()

    def handle(number: int, _: object) -> None:
        if not launched.is_set():
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    sys.addaudithook(notice)
    for number in OUTLIVED:  # a handler, not SIG_IGN: the job would inherit that
        signal.signal(number, handle)


def _by_time(error: Any) -> dict[int, int]:
    """Rank -> exit code of the processes that failed, in torch's ChildFailedError, the first to fail first."""
    failures = sorted(error.failures.items(), key=lambda item: item[1].timestamp)
    return {rank: failure.exitcode for rank, failure in failures}


def _report(codes: dict[int, int]) -> int:
    """Print which rank was killed, if any; the exit code, in the shell's form, of what ended the job."""
    for rank, code in codes.items():
        if -code in FATAL_SIGNALS:
            hint = ": the machine's memory may be too small" if -code == signal.SIGKILL else ""
            print(f"error: rank {rank} was killed by {signal.Signals(-code).name}{hint}", file=sys.stderr, flush=True)
            return 128 - code
    first = next(iter(codes.values()))
    return first if first >= 0 else 128 - first


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
