"""`cancel`: end runs so that nothing is lost.

A running job is sent SIGTERM, on which it saves a checkpoint and stops; that is no preemption, so it is not requeued. A
waiting one is taken out of the queue. Only when Slurm, or the process table, confirms the end does status.json say
CANCELLED: until then the job itself may write there.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from job.errors import Refused
from job.run.folder import RunFolder
from job.runtime import files
from launch.runs import folders, processes, slurm, states, tables
from launch.runs.folders import Job, RunState
from launch.runs.states import View

POLL_SECONDS = 1.0
SAVE_SECONDS = 180.0
"""How long a running job has to save and end before it is cancelled without."""
END_SECONDS = 120.0
"""How long an end without saving may take: Slurm's KillWait and some more."""
ENDED = ("DONE", "FAILED", "NEEDS_HUMAN")
"""States that a run may reach by itself while it is being cancelled: they stay."""


@dataclass
class Cancellation:
    """One run being cancelled."""

    run: RunState
    job: Job
    saves: bool
    """Whether it was asked to save, so that it has SAVE_SECONDS."""
    killed: bool = False
    """Whether a job that did not end by itself was cancelled the hard way."""


def cancel(runs: Sequence[str], *, queued: bool, as_json: bool = False) -> int:
    """End the runs that `runs` names, or all that wait; 0 when every one has ended. JSON: what became of each.

    Raises:
        Refused: a run that is not there or cannot be reached from here, or Slurm does not answer; nothing was done.
    """
    views = _chosen(runs, queued)
    wanted = [planned for view in views if (planned := _plan(view))]
    begun = [cancellation for cancellation in wanted if _begin(cancellation)]
    left = _wait(begun, time.sleep)
    for cancellation in begun:
        _report(cancellation, cancellation in left)
    if as_json:
        ended = [{"run": view.run.name, "path": str(view.run.path), "state": _state(view.run.path)} for view in views]
        tables.write(json.dumps(ended, indent=2, ensure_ascii=False))
    return 1 if left or len(begun) < len(wanted) else 0


def _chosen(runs: Sequence[str], queued: bool) -> list[View]:
    if queued and runs:
        raise Refused("--queued means all runs that wait: leave out the names")
    if not queued and not runs:
        raise Refused("name the runs to cancel, or --queued for all that wait; `status` lists them")
    found = [folders.below(), *map(folders.elements, folders.sweeps())] if queued else map(_find, runs)
    paths = list(dict.fromkeys(path for some in found for path in some))
    views, problem = states.look(paths, time.time())
    if problem:
        raise Refused(f"{problem}: nothing was cancelled, try again")
    if queued:
        views = [view for view in views if view.state == "QUEUED"]
        if not views:
            _say(f"nothing waits in {folders.RUNS}/")
    return views


def _find(run: str) -> list[Path]:
    """The run folder that is meant; of a sweep all."""
    if sweep := folders.find_sweep(run):
        return folders.elements(sweep)
    return [folders.newest_submission() if run == folders.LATEST else folders.find(run)]


def _plan(view: View) -> Cancellation | None:
    """How the run is to be ended; None where there is nothing to end."""
    run, job = view.run, view.run.job
    alive = view.slurm is not None and not view.slurm.has_ended
    if view.state not in ("QUEUED", "RUNNING") and not alive:
        _say(f"{run.name} is {view.state}: nothing to cancel")
        return None
    if job is None:
        raise Refused(f"{run.name} was not started by this launcher: stop it where it was started")
    if job.launcher == "slurm":
        return Cancellation(run, job, saves=view.slurm is not None and view.slurm.runs and run.state == "RUNNING")
    if job.host != socket.gethostname():
        raise Refused(f"{run.name} runs on {job.host}: cancel it there")
    if not _process_runs(job):
        raise Refused(f"{run.name} has no {_process(job)} on {job.host} any more: it ends by itself, look at `status`")
    return Cancellation(run, job, saves=True)


def _begin(cancellation: Cancellation) -> bool:
    """Send what ends the run; whether that worked."""
    run, job, saves = cancellation.run, cancellation.job, cancellation.saves
    if job.launcher == "slurm":
        problem = slurm.scancel(job.id, job.cluster, "TERM" if saves else "")
        cancellation.killed = not saves
    else:
        problem = processes.terminate_container(job.container) if job.container else _terminate(job.pid)
    _say(f"{run.name}: {problem or ('saves and stops' if saves else 'cancelled')} ({_process(job)})")
    return not problem


def _terminate(pid: int) -> str:
    """Why SIGTERM could not be sent, or nothing."""
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        return f"not cancelled: {error.strerror}"
    return ""


def _wait(begun: Sequence[Cancellation], pause: Callable[[float], None]) -> list[Cancellation]:
    """Wait until all have ended; those that have not in time."""
    left, waited = list(begun), 0.0
    while left and waited < SAVE_SECONDS + END_SECONDS:
        left = _unfinished(left, hard=waited >= SAVE_SECONDS)
        if left:
            pause(POLL_SECONDS)
            waited += POLL_SECONDS
    return left


def _unfinished(left: Sequence[Cancellation], *, hard: bool) -> list[Cancellation]:
    """Those of `left` that have not ended. A job that was requeued meanwhile, or takes too long, is cancelled."""
    found = [one for one in left if one.job.launcher != "slurm" and _process_runs(one.job)]
    for cluster in {one.job.cluster for one in left if one.job.launcher == "slurm"}:
        mine = [one for one in left if one.job.launcher == "slurm" and one.job.cluster == cluster]
        answer = slurm.squeue([one.job.id for one in mine], cluster)
        for one in mine:
            job = answer.jobs.get(one.job.id)
            if answer.problem or (job and not job.has_ended):
                found.append(one)
            if job and not one.killed and (job.waits or (hard and job.runs)):
                one.killed = not slurm.scancel(one.job.id, cluster)
    return found


def _process(job: Job) -> str:
    """What is ended, in words."""
    if job.launcher == "slurm":
        return f"job {job.id}"
    return f"container {job.container}" if job.container else f"process {job.pid}"


def _process_runs(job: Job) -> bool:
    if job.container:
        return processes.container_runs(job.container)
    return processes.is_running(job.pid, job.process_start)


def _report(cancellation: Cancellation, unfinished: bool) -> None:
    """Write CANCELLED where the end is confirmed, and say how far the run got."""
    run = cancellation.run
    if unfinished:
        _say(f"{run.name} has not ended yet: `status {run.name}` shows whether it does")
        return
    path = RunFolder(run.path).status
    status = folders.read_json(path)
    if status.get("state") in ENDED:
        _say(f"{run.name}: {status['state']} before it was cancelled")
        return
    now = files.utc_now("milliseconds")
    files.write_json(path, {"step": 0, **status, "state": "CANCELLED", "reason": f"by {_user()}", "heartbeat": now})
    checkpoint = max((p.name for p in RunFolder(run.path).checkpoints.glob("step-*")), default="")
    _say(f"{run.name}: CANCELLED{f', {checkpoint} is kept: `rerun {run.name}` resumes from it' if checkpoint else ''}")


def _state(path: Path) -> object:
    return folders.read_json(RunFolder(path).status).get("state")


def _user() -> str:
    with contextlib.suppress(KeyError, OSError):  # a user without a name, as in a container
        return getpass.getuser()
    return str(os.getuid())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
