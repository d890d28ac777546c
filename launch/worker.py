"""What submitit starts on a node, once a rank: the one place that knows both Slurm and the job.

Run as a script it holds signals back, so that one that comes while Python imports is neither lost nor fatal, and
becomes submitit's worker with the code of its own snapshot. That calls `run`, which joins the ranks and runs the job.

A job that stopped behind a checkpoint leaves a marker for the batch script, which requeues: a container has no
scontrol. Everyone then exits with 0 by SystemExit, of which submitit makes no result: whoever waits for one waits for
the real end. Exit codes would not do as a message, as srun reports its own kill (143) where ranks end one by one.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

THREADS = "MUSTER_THREADS"
MASTER_ADDR = "MUSTER_MASTER_ADDR"
MARKER = "requeue"
RECORD = "restarts.json"
STOPPED = 75
HELD_BACK = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
FRUITLESS = 3
"""So many restarts without a newer checkpoint end the job."""


@dataclass(frozen=True)
class Stop:
    """A stop behind a checkpoint."""

    step: int
    """Step of the newest checkpoint."""
    restarts: int
    """How often Slurm had restarted the job by then."""


def next_record(last: Stop | None, now: Stop) -> Stop | None:
    """The last stop that made progress, this one included; None if the job is not to be restarted once more."""
    if last is None or now.step > last.step:
        return now
    return last if now.restarts - last.restarts < FRUITLESS else None


def main(argv: list[str]) -> None:
    """`worker.py -u -m submitit.core._submit FOLDER`: run that module with the code that this file is part of."""
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # started with -P: our folder itself is not on it
    at = argv.index("-m") + 1
    sys.argv = argv[at:]
    runpy.run_module(argv[at], run_name="__main__", alter_sys=True)


def run(*argv: str) -> int:
    """Run the job's command line as this rank of the Slurm job; returns 0 when it is finished.

    Raises:
        SystemExit: with the job's exit code if it failed, with 0 if it stopped and is to be requeued.
    """
    from submitit import JobEnvironment

    from job import train

    rank = JobEnvironment()
    _join(rank.job_id)
    signal.signal(signal.SIGCONT, signal.SIG_DFL)  # submitit would log each
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
    # Settings say how a run begins: begun anew it is once, not at every restart.
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    code = train.main([*argv, *(["--no_overwrite_output_dir"] if restarts else [])])
    if code == STOPPED:
        code = _leave_marker(rank.paths.folder, restarts) if rank.global_rank == 0 else 0
    elif code == 0:
        return 0
    raise SystemExit(code)


def _join(job_id: str) -> None:
    """Tell torch and accelerate which rank this is. GPUs are not masked: a rank names its own by its local rank."""
    from submitit.helpers import TorchDistributedEnvironment

    TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
    if address := os.environ.get(MASTER_ADDR):
        os.environ["MASTER_ADDR"] = address
    os.environ["MUSTER_OWNER"] = f"slurm:{job_id}"


def _leave_marker(folder: Path, restarts: int) -> int:
    """Ask the batch script for a requeue, unless the restarts lead nowhere; the exit code."""
    run = folder.parents[1]
    step = int(json.loads((run / "status.json").read_text(encoding="utf-8"))["step"])
    record = folder / RECORD
    last = Stop(**json.loads(record.read_text(encoding="utf-8"))) if record.exists() else None
    progress = next_record(last, Stop(step, restarts))
    if progress is None:
        print(f"error: {FRUITLESS} restarts made no progress beyond step {step}: not requeued; if a start is too short "
              "for a checkpoint, raise --time", file=sys.stderr, flush=True)  # fmt: skip
        return STOPPED
    record.write_text(json.dumps({"step": progress.step, "restarts": progress.restarts}), encoding="utf-8")
    _write_marker(folder / MARKER)
    return 0


def _write_marker(marker: Path) -> None:
    """In one step, so that the batch script never reads half a word."""
    aside = marker.with_name(f".{marker.name}")
    aside.write_text("SIGUSR2\n", encoding="ascii")
    aside.replace(marker)


if __name__ == "__main__":
    main(sys.argv)
