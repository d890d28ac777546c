"""The process that srun starts for each rank: the only module that knows both Slurm and the job.

As a script it blocks signals, so that one that arrives while Python imports is neither lost nor fatal, and then runs
submitit's worker with the code of its own snapshot. The worker calls `run`, which joins the ranks and runs the job.

A job that stopped leaves a marker for the batch script, which requeues it, because a container has no scontrol. After a
checkpoint rank 0 writes the marker; while the ranks still wait for each other any rank does, since they cannot agree
yet. All ranks then exit with 0 through SystemExit, which submitit does not record as a result, so that a caller that
waits for the result waits for the last start. An exit code cannot replace the marker: if ranks end one after another,
srun reports the code of its own kill (143).
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # with -P, Python does not add our folder to the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from job.runtime import contract

if TYPE_CHECKING:
    from submitit import JobEnvironment

RECORD = "restarts.json"
MAX_IDLE_RESTARTS = 3
"""Restarts without a newer checkpoint after which the job is not requeued again."""


@dataclass(frozen=True)
class Stop:
    """A stop after a checkpoint."""

    step: int
    """Step of the newest checkpoint."""
    restarts: int
    """Number of restarts by Slurm before this stop."""


def next_record(last: Stop | None, now: Stop) -> Stop | None:
    """The last stop that made progress, `now` included; None if the job should not be restarted again."""
    if last is None or now.step > last.step:
        return now
    return last if now.restarts - last.restarts < MAX_IDLE_RESTARTS else None


def main(argv: list[str]) -> None:
    """`worker.py -u -m submitit.core._submit FOLDER`: run that module with the code of this snapshot."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2))
    module = argv.index("-m") + 1
    sys.argv = argv[module:]
    runpy.run_module(argv[module], run_name="__main__", alter_sys=True)


def run(*argv: str) -> int:
    """Run the job's command line as this rank of the Slurm job; returns 0 when it is finished.

    Raises:
        SystemExit: with the job's exit code if it failed, with 0 if it stopped and should be requeued.
    """
    from submitit import JobEnvironment

    from job.errors import Stopped
    from job.runtime import ending, signals

    rank = JobEnvironment()
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    os.environ[contract.OWNER] = f"{contract.SLURM}{rank.job_id}"
    signals.install()
    signal.signal(signal.SIGCONT, signal.SIG_DFL)  # submitit would log each one
    code = _train(rank, restarts, argv)
    signals.ignore()
    if code == 0:
        return 0
    if code == Stopped.exit_code:
        code = leave_marker(rank.paths.folder, restarts) if rank.global_rank == 0 else 0
    return ending.end_process(code)


def _train(rank: JobEnvironment, restarts: int, argv: Sequence[str]) -> int:
    """Join the other ranks and run the job; returns its exit code."""
    from job import train
    from job.errors import JobError, Stopped
    from job.runtime import ending, environment, signals
    from job.runtime.console import last_line
    from launch.slurm import rendezvous

    def leave(stop: Stopped) -> None:
        leave_marker(rank.paths.folder, restarts)
        ending.say_stopped(stop)

    rendezvous.name_rank(rank)
    try:
        environment.prepare()
        with signals.stop_while_waiting_for_peers(leave):
            store = rendezvous.join(rank, restarts)
    except Stopped as stop:
        leave(stop)
        return 0
    except JobError as error:
        last_line(f"error: {error}")
        return error.exit_code
    code = train.main(list(argv), leave=leave)
    del store  # must stay open until the job has ended
    return code


def leave_marker(folder: Path, restarts: int) -> int:
    """Ask the batch script for a requeue, unless restarts make no progress; returns the exit code."""
    from job.errors import Stopped
    from job.runtime import signals

    step = int(_read(folder.parents[1] / contract.STATUS).get("step", 0))
    last = _read(folder / RECORD)
    progress = next_record(Stop(**last) if last else None, Stop(step, restarts))
    if progress is None:
        print(f"error: {MAX_IDLE_RESTARTS} restarts made no progress beyond step {step}: not requeued; if a start is "
              "too short for a checkpoint, raise --time", file=sys.stderr, flush=True)  # fmt: skip
        return Stopped.exit_code
    _write(folder / RECORD, json.dumps(asdict(progress)))
    reason, marker = signals.reason(), folder / contract.REQUEUE
    if reason or not marker.exists():  # a rank without a signal does not overwrite another one's
        _write(marker, signals.in_words(reason) if reason else "another rank")
    return 0


def _read(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if it does not exist, as before the first stop."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _write(path: Path, text: str) -> None:
    """Write atomically, because the batch script reads the file. Several ranks may write at the same time."""
    aside = path.with_name(f".{path.name}.{os.environ.get('SLURM_PROCID', '0')}")
    aside.write_text(f"{text}\n", encoding="utf-8")
    aside.replace(path)


if __name__ == "__main__":
    main(sys.argv)
