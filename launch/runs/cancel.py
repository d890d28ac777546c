"""`cancel`: stop runs without losing work.

A running job gets SIGTERM: it saves a checkpoint and stops. Slurm does not record a preemption, so it is not requeued.
A waiting job is removed from the queue. status.json is set to CANCELLED only after Slurm, or the process table,
confirms the end: until then the job itself may write it.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from job.errors import Refused
from job.run.folder import RunFolder
from job.runtime import files
from launch.console import note
from launch.runs import folders, processes, run_state, slurm, states, tables
from launch.runs.run_state import Job, RunState
from launch.runs.states import View

POLL_SECONDS = 1.0
SAVE_SECONDS = 180.0
"""How long a running job may take to save and end before it is cancelled without saving."""
END_SECONDS = 120.0
"""How long an end without saving may take: Slurm's KillWait plus a margin."""
ENDED = ("DONE", "FAILED", "NEEDS_HUMAN")
"""States that a run may reach by itself while it is being cancelled; they are kept."""


@dataclass
class Cancellation:
    """One run being cancelled."""

    run: RunState
    job: Job
    saves: bool
    """Whether it saves first, for which it has SAVE_SECONDS."""
    killed: bool = False
    """Whether it was cancelled without saving."""


def cancel(runs: Sequence[str], *, queued: bool, as_json: bool = False) -> int:
    """Cancel the given runs, or all queued ones; returns 0 if every one has ended, else 1. JSON: their final states.

    Raises:
        Refused: a run does not exist, the only one cannot be cancelled from here, or Slurm does not answer; nothing was
            cancelled.
    """
    views = _chosen(runs, queued)
    wanted, failures = _planned(views)
    for sweep in filter(None, map(folders.find_sweep, runs)):
        _stop_local(sweep)
    begun = [cancellation for cancellation in wanted if _begin(cancellation)]
    left = _wait(begun, time.sleep)
    failures += len(wanted) - len(begun)
    failures += sum(not _report(cancellation, cancellation in left) for cancellation in begun)
    if as_json:
        ended = [{"run": view.run.name, "path": str(view.run.path), "state": _state(view.run.path)} for view in views]
        tables.write(json.dumps(ended, indent=2, ensure_ascii=False))
    return 1 if failures else 0


def _chosen(runs: Sequence[str], queued: bool) -> list[View]:
    if queued and runs:
        raise Refused("--queued cancels all queued runs: remove the names, or remove --queued")
    if not queued and not runs:
        raise Refused("name the runs to cancel, or use --queued for all queued ones; `status` lists them")
    groups = [folders.below(), *map(folders.elements, folders.sweeps())] if queued else map(_find, runs)
    paths = list(dict.fromkeys(path for group in groups for path in group))
    views, problem = states.read(paths, time.time())
    if problem:
        raise Refused(f"{problem}: nothing was cancelled, try again")
    if queued:
        views = [view for view in views if view.state == "QUEUED"]
        if not views:
            note(f"no queued runs in {folders.RUNS}/")
    return views


def _find(run: str) -> list[Path]:
    """The run folders for `run`: one; all of a sweep; or, for the id of an array, those whose newest job is in it."""
    if sweep := folders.find_sweep(run):
        elements = folders.elements(sweep)
        if not run.isdigit() or folders.is_sweep(Path(run)) or folders.is_sweep(folders.RUNS / run):
            return elements
        mine = [path for path in elements if (job := run_state.newest_job(path)) and job.id.partition("_")[0] == run]
        if not mine:
            raise Refused(
                f"the runs of array {run} were submitted again since: name the sweep, {sweep}, or a newer array"
            )
        return mine
    if run == folders.LATEST:
        return [folders.newest_submission()]
    path = folders.find(run)
    _refuse_old_job(run, path)
    return [path]


def _refuse_old_job(run: str, path: Path) -> None:
    """Refused if `run` is the id of a job that is not the newest of the run in `path`."""
    newest = run_state.newest_job(path)
    is_name = folders.is_run(Path(run)) or folders.is_run(folders.RUNS / run)
    if newest is not None and newest.id != run and not is_name and folders.job_folder(path, run):
        name = folders.reference(path)
        raise Refused(f"job {run} is not the newest of {name}, which is {newest.id}: to cancel that, name it or {name}")


def _planned(views: Sequence[View]) -> tuple[list[Cancellation], int]:
    """How to end the runs that have not ended; and how many of several cannot be cancelled, which are reported."""
    planned: list[Cancellation] = []
    failures = 0
    for view in views:
        try:
            planned += _plan(view)
        except Refused as refused:
            if len(views) == 1:
                raise
            note(str(refused))
            failures += 1
    return planned, failures


def _plan(view: View) -> list[Cancellation]:
    """How to end the run; nothing if it has ended. Refused if it cannot be ended from here."""
    run, job, name = view.run, view.run.job, folders.reference(view.run.path)
    alive = view.slurm is not None and not view.slurm.has_ended
    if view.state not in ("QUEUED", "RUNNING") and not alive:
        note(f"{name} is {view.state}: nothing to cancel")
        return []
    if job is None and view.state == "QUEUED":
        owner = files.read_json(RunFolder(run.path).status).get("owner")
        raise Refused(f"{name} was submitted, but sbatch's answer with the job id was lost: the job, if there is one, "
                      f"has the comment {owner} in `squeue --me --format='%A %k'`; `scancel` ends it")  # fmt: skip
    if job is None:
        raise Refused(f"{name} was not started by this launcher: stop it with the tool that started it")
    if job.launcher == "slurm":
        _refuse_doubtful(view, job, name)
        return [Cancellation(run, job, saves=view.slurm is not None and view.slurm.runs and run.state == "RUNNING")]
    if job.host != socket.gethostname():
        raise Refused(f"{name} runs on {job.host}: cancel it there")
    if not _may_run(job):
        raise Refused(f"{name}: {job.process} on {job.host} has ended: see `status {name}`")
    return [Cancellation(run, job, saves=True)]


def _refuse_doubtful(view: View, job: Job, name: str) -> None:
    """Refused if Slurm's job has lost the comment that it was submitted with: it may be another job with this id."""
    shown = view.slurm.comment if view.slurm else ""
    if job.token and shown and slurm.is_of_submission(shown, job.token) is None:
        raise Refused(f"{name}: the comment of job {job.id} is {shown!r} without {job.token}, so it may not be this "
                      f"run's: `scontrol show job {job.id}` shows it, `scancel {job.id}` ends it")  # fmt: skip


def _stop_local(sweep: Path) -> None:
    """Tell a sweep on this machine, whose process starts one run after another, to start no other."""
    if any(job and job.launcher == "local" for job in map(run_state.newest_job, folders.elements(sweep))):
        try:
            files.write_text(sweep / folders.STOP, "")
        except OSError as error:
            raise Refused(f"{sweep} cannot be written ({error.strerror}): nothing was cancelled") from None


def _begin(cancellation: Cancellation) -> bool:
    """Send the signal or command that ends the run; returns whether that worked."""
    run, job, saves = cancellation.run, cancellation.job, cancellation.saves
    if job.launcher == "slurm":
        problem = slurm.scancel(job.id, job.cluster, "TERM" if saves else "")
        cancellation.killed = not saves
    else:
        problem = processes.terminate_container(job.container) if job.container else _terminate(job.pid)
    done = problem or ("saving a checkpoint, then stopping" if saves else "cancelled")
    note(f"{folders.reference(run.path)}: {done} ({job.process})")
    return not problem


def _terminate(pid: int) -> str:
    """Send SIGTERM; returns an error message, or an empty string."""
    try:
        os.kill(pid, signal.SIGTERM)
    except OSError as error:
        return f"not cancelled: {error.strerror}"
    return ""


def _wait(begun: Sequence[Cancellation], pause: Callable[[float], None]) -> list[Cancellation]:
    """Wait until all have ended; returns those that have not ended in time."""
    left, waited = list(begun), 0.0
    while left and waited < SAVE_SECONDS + END_SECONDS:
        left = _unfinished(left, hard=waited >= SAVE_SECONDS)
        if left:
            pause(POLL_SECONDS)
            waited += POLL_SECONDS
    return left


def _unfinished(left: Sequence[Cancellation], *, hard: bool) -> list[Cancellation]:
    """Those of `left` that have not ended. A job that was requeued meanwhile, or is out of time, is cancelled."""
    unfinished = [one for one in left if one.job.launcher != "slurm" and _may_run(one.job)]
    for cluster in {one.job.cluster for one in left if one.job.launcher == "slurm"}:
        mine = [one for one in left if one.job.launcher == "slurm" and one.job.cluster == cluster]
        answer = slurm.squeue([one.job.id for one in mine], cluster)
        for one in mine:
            job = answer.job(one.job.id, one.job.token)
            if answer.problem or (job and not job.has_ended):
                unfinished.append(one)
            if job and not one.killed and (job.waits or (hard and job.runs)):
                one.killed = not slurm.scancel(one.job.id, cluster)
    return unfinished


def _may_run(job: Job) -> bool:
    return states.process_runs(job) is not False


def _report(cancellation: Cancellation, unfinished: bool) -> bool:
    """Write CANCELLED if the end is confirmed, and print which checkpoint is kept; returns whether it is recorded."""
    run, name = cancellation.run, folders.reference(cancellation.run.path)
    if unfinished:
        note(f"{name} has not ended yet: check `status {name}`")
        return False
    path = RunFolder(run.path).status
    status = files.read_json(path)
    if status.get("state") in ENDED:
        note(f"{name}: {status['state']} before it was cancelled")
        return True
    now = files.utc_now("milliseconds")
    try:
        files.write_json(path, {"step": 0, **status, "state": "CANCELLED", "reason": f"by {_user()}", "heartbeat": now})
    except OSError as error:
        note(f"{name} has ended, but {path} cannot be written ({error.strerror}): free some space there")
        return False
    checkpoint = max((p.name for p in RunFolder(run.path).checkpoints.glob("step-*")), default="")
    note(f"{name}: CANCELLED{f', {checkpoint} is kept; `rerun {name}` resumes from it' if checkpoint else ''}")
    return True


def _state(path: Path) -> object:
    return files.read_json(RunFolder(path).status).get("state")


def _user() -> str:
    with contextlib.suppress(KeyError, OSError):  # the user may have no name, for example in a container
        return getpass.getuser()
    return str(os.getuid())
