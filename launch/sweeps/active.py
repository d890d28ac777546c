"""What already runs of a sweep on this machine: the process that starts its runs, or runs that outlived theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from job.errors import Refused
from job.run import lock
from job.runtime.gpus import MASK
from launch.runs import processes, run_state, states
from launch.sweeps.sweep import Sweep


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Refused if another process starts the runs of the sweep in `folder`: two would start them on the same GPUs."""
    try:
        lock.acquire(folder)
    except Refused:
        raise Refused(f"another process runs the sweep in {folder}: wait until it ends, or `cancel` it") from None
    try:
        yield
    finally:
        lock.release(folder)


def devices(sweep: Sweep) -> tuple[str | None, ...]:
    """CUDA_VISIBLE_DEVICES of each run of the sweep that runs on this machine; None where it is not set."""
    jobs = [run_state.newest_job(element.run) for element in sweep.elements]
    running = [job for job in jobs if job is not None and job.launcher == "local" and states.process_runs(job)]
    return tuple(processes.variable(job.pid, MASK) for job in running)
