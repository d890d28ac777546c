"""The end of a process that runs the job: its last line, the exit code for the launcher, and leaving at once."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

from job.errors import Stopped
from job.runtime import console, contract, signals


def say_stopped(stop: Stopped) -> None:
    """Print the last line of a process that is stopped while it waits for the others."""
    console.last_line(str(stop))
    report_exit_code(stop.exit_code)


def report_exit_code(code: int) -> None:
    """Write the exit code to the file that our launcher named: accelerate and torchrun turn every failure into a 1.

    The first failure counts; later ones follow from it.
    """
    path = os.environ.get(contract.EXIT_CODE_FILE)
    if path and (code or os.environ.get("RANK", "0") == "0"):
        with contextlib.suppress(FileExistsError), open(path, "x", encoding="ascii") as file:
            file.write(str(code))


def end_process(code: int) -> NoReturn:
    """End this process, which runs a script.

    If it is still in the process group, it has lost the other processes: the teardown of NCCL, gloo and CUDA would wait
    for them, so it is skipped. A notebook's process must not end like that, so `train` does not call this.
    """
    signals.ignore()
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
