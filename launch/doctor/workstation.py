"""The same checks on this machine alone, without Slurm: one process a GPU, or as many as are asked for on the CPU."""

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
    """What is to be checked."""

    gpus: int
    processes: int
    folder: Path
    seconds: float = 240.0
    """After which processes that hang are killed; they end by themselves before."""

    def command(self) -> list[str]:
        return [sys.executable, "-P", str(NODE), str(self.folder), str(self.gpus)]


def run(request: Request, environ: Mapping[str, str]) -> list[Finding]:
    """Start the processes, wait for their end, and read what they found."""
    begun = time.time()
    size = {"WORLD_SIZE": str(request.processes), "LOCAL_WORLD_SIZE": str(request.processes)}
    started = [_start(request, {**environ, **size, "RANK": str(n), "LOCAL_RANK": str(n)}, n)
               for n in range(request.processes)]  # fmt: skip
    until = time.monotonic() + request.seconds
    try:
        for process in started:
            process.wait(max(0.1, until - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass  # what it had found by then is written
    finally:
        ended = [process.poll() for process in started]  # without those that are killed for their time
        for process in started:
            process.kill()
            process.wait()
    code = next((code for code in ended if code), 0)
    found = outcome.of_ranks(request.folder, begun, code)
    here = Finding(HERE.name, OK, f"{request.folder.parent} can be written")
    return [here, *(replace(finding, place="") for finding in found)]  # there is one machine


def _start(request: Request, environ: Mapping[str, str], number: int) -> subprocess.Popen[bytes]:
    with open(request.folder / f"{number}_log.err", "wb") as log:
        return subprocess.Popen(request.command(), env={**os.environ, **environ}, stdout=log, stderr=log)
