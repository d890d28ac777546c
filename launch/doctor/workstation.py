"""The same checks on this machine only, without Slurm: one process per GPU, or the requested number on the CPU."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from launch.doctor import outcome
from launch.doctor.checks import HERE, OK, Finding

NODE = Path(__file__).with_name("node.py")


@dataclass(frozen=True)
class Request:
    """What to check."""

    gpus: int
    processes: int
    folder: Path
    seconds: float = 240.0
    """Time after which hanging processes are killed; they should end by themselves earlier."""

    def command(self) -> list[str]:
        return [sys.executable, "-P", str(NODE), str(self.folder), str(self.gpus)]


def run(request: Request, environ: Mapping[str, str]) -> list[Finding]:
    """Start the processes, wait for their end, and read their results."""
    started_at = time.time()
    size = {"WORLD_SIZE": str(request.processes), "LOCAL_WORLD_SIZE": str(request.processes)}
    processes = [_start(request, {**environ, **size, "RANK": str(n), "LOCAL_RANK": str(n)}, n)
                 for n in range(request.processes)]  # fmt: skip
    until = time.monotonic() + request.seconds
    try:
        for process in processes:
            process.wait(max(0.1, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass  # its results so far are in the folder
    finally:
        ended = [process.poll() for process in processes]  # before the kill: a killed process counts as not answering
        for process in processes:
            process.kill()
            process.wait()
    code = next((code for code in ended if code), 0)
    findings = outcome.of_ranks(request.folder, started_at, code)
    writable = Finding(HERE.name, OK, f"{request.folder.parent} can be written")
    return [writable, *(replace(finding, place="") for finding in findings)]  # a single machine needs no name


def _start(request: Request, environ: Mapping[str, str], number: int) -> subprocess.Popen[bytes]:
    with open(request.folder / f"{number}_log.err", "wb") as log:
        return subprocess.Popen(request.command(), env={**os.environ, **environ}, stdout=log, stderr=log)
