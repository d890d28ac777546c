"""What submitit starts on a node, once a rank: the one place that knows both Slurm and the job.

Run as a script it holds signals back, so that one that comes while Python imports is neither lost nor fatal, and
becomes submitit's worker with the code of its own snapshot. That calls `run`, which joins the ranks and runs the job.

A job that stopped leaves a marker for the batch script, which requeues: a container has no scontrol. After a checkpoint
rank 0 leaves it; while ranks still wait for each other any rank does, since nothing can be agreed on yet. Everyone then
exits with 0 by SystemExit, which submitit does not record as a result, so that waiting for a result waits for the real
end. Exit codes would not do as a message, as srun reports its own kill (143) where ranks end one by one.
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

if __name__ == "__main__":  # started with -P: our folder itself is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from job.runtime import contract

if TYPE_CHECKING:
    from submitit import JobEnvironment

RECORD = "restarts.json"
MAX_IDLE_RESTARTS = 3
"""Restarts without a newer checkpoint after which the job is not requeued again."""


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
    return last if now.restarts - last.restarts < MAX_IDLE_RESTARTS else None


def main(argv: list[str]) -> None:
    """`worker.py -u -m submitit.core._submit FOLDER`: run that module with the code that this file is part of."""
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2))
    at = argv.index("-m") + 1
    sys.argv = argv[at:]
    runpy.run_module(argv[at], run_name="__main__", alter_sys=True)


def run(*argv: str) -> int:
    """Run the job's command line as this rank of the Slurm job; returns 0 when it is finished.

    Raises:
        SystemExit: with the job's exit code if it failed, with 0 if it stopped and is to be requeued.
    """
    from submitit import JobEnvironment

    from job.errors import Stopped
    from job.runtime import signals
    from job.train import end_process

    rank = JobEnvironment()
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    os.environ[contract.OWNER] = f"slurm:{rank.job_id}"
    signals.install()
    signal.signal(signal.SIGCONT, signal.SIG_DFL)  # submitit would log each
    code = _train(rank, restarts, argv)
    signals.ignore()
    if code == 0:
        return 0
    if code == Stopped.exit_code:
        code = leave_marker(rank.paths.folder, restarts) if rank.global_rank == 0 else 0
    return end_process(code)


def _train(rank: JobEnvironment, restarts: int, argv: Sequence[str]) -> int:
    """Join the other ranks and run the job; its exit code."""
    from job import train
    from job.errors import JobError, Stopped
    from job.runtime import environment, signals
    from job.runtime.console import last_line
    from launch.slurm import rendezvous

    def leave(stop: Stopped) -> None:
        leave_marker(rank.paths.folder, restarts)
        train.say_stopped(stop)

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
    del store  # lived until here
    return code


def leave_marker(folder: Path, restarts: int) -> int:
    """Ask the batch script for a requeue, unless the restarts lead nowhere; the exit code."""
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
    if reason or not marker.exists():  # a rank that only lost the others does not hide the signal that another one got
        _write(marker, signals.in_words(reason) if reason else "another rank")
    return 0


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is no file: a stop may come before the first."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _write(path: Path, text: str) -> None:
    """In one step: the batch script never reads half a word. Several ranks may write at the same time."""
    aside = path.with_name(f".{path.name}.{os.environ.get('SLURM_PROCID', '0')}")
    aside.write_text(f"{text}\n", encoding="utf-8")
    aside.replace(path)


if __name__ == "__main__":
    main(sys.argv)
