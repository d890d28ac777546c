"""The state of a run: from its folder, corrected by Slurm.

The folder contains what the job wrote last. It does not show whether a queued job still waits, or that a job was
killed. Slurm knows that, if it answers; otherwise the heartbeat decides.
"""

from __future__ import annotations

import dataclasses
import re
import socket
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from job.runtime import contract
from launch.runs import explanations, failures, processes, run_state, slurm
from launch.runs.run_state import Job, RunState, seconds
from launch.runs.slurm import Answer, SlurmJob

QUERIED = ("QUEUED", "RUNNING", "STOPPED", "UNKNOWN")
"""States for which Slurm is queried: a stopped run may have been requeued."""
OPEN = ("QUEUED", "RUNNING", "UNKNOWN")
"""States in the folder of a job that may have been killed without recording it."""

EXIT_CODE = r"exit code (\d+)"
SILENT = "Slurm did not answer"


@dataclass(frozen=True)
class View:
    """A run as it is shown."""

    run: RunState
    state: str
    """A state of status.json, LOST or UNKNOWN."""
    note: str = ""
    slurm: SlurmJob | None = None

    @property
    def seconds_left(self) -> float | None:
        """Time until the last step, at the speed of the last record, without evaluations."""
        run = self.run
        if self.state != "RUNNING" or run.steps is None or run.seconds_per_step is None:
            return None
        return max(0, run.steps - run.step) * run.seconds_per_step


def read(paths: Iterable[Path], now: float) -> tuple[list[View], str]:
    """The runs in `paths`, newest first; and a message if Slurm was queried and did not answer."""
    runs = [run_state.read(path) for path in paths]
    answers = query(runs, now)
    views = [view(run, answers.get(_cluster(run), Answer()), now) for run in runs]
    problem = next((answer.problem for answer in answers.values() if answer.problem), "")
    explained = [_explained(one) for one in views]
    return sorted(explained, key=lambda one: (one.run.started, one.run.name), reverse=True), problem


def query(runs: Sequence[RunState], now: float) -> dict[str, Answer]:
    """Slurm's answer for each cluster: from squeue, and from sacct for jobs that squeue does not know."""
    by_cluster: dict[str, list[RunState]] = defaultdict(list)
    for run in runs:
        if run.job and run.job.launcher == "slurm" and slurm.is_job_id(run.job.id) and run.state in QUERIED:
            by_cluster[run.job.cluster].append(run)
    return {cluster: _answer(cluster, group, now) for cluster, group in by_cluster.items()}


def _answer(cluster: str, runs: Sequence[RunState], now: float) -> Answer:
    ids = [run.job.id for run in runs if run.job]
    known = slurm.squeue(ids, cluster)
    unknown = [
        run.job.id
        for run in runs
        if run.job and run.job.id not in known.jobs and run.state in OPEN and not _is_alive(run, now)
    ]
    ended = slurm.sacct(unknown, cluster)
    return dataclasses.replace(known, jobs={**ended.jobs, **known.jobs})


def view(run: RunState, answer: Answer, now: float) -> View:
    """The state of a run, from its folder and Slurm's answer."""
    if run.job is None or run.job.launcher != "slurm" or run.state not in QUERIED:
        return _by_folder(run, now)
    job = answer.job(run.job.id, run.job.token)
    if job is None:
        return _without_slurm(run, answer, now)
    if job.waits:
        return View(run, "QUEUED", _joined(_restarts(run), str(explanations.pending(job.reason))), job)
    if job.runs:
        return _running(run, job, now)
    return _ended(run, job, now)


def _by_folder(run: RunState, now: float) -> View:
    if run.job is None and run.state == "QUEUED":
        return View(run, "QUEUED", "no job id is recorded")
    if _is_starting(run):
        return View(run, "RUNNING", "starting")
    if run.state == "RUNNING" and not _is_alive(run, now):
        return View(run, "LOST", f"no heartbeat for {_silence(run, now)}")
    return View(run, run.state, _joined(_restarts(run) if run.state == "RUNNING" else "", _reason(run)))


def _reason(run: RunState) -> str:
    """Why it ended; an exit code written by the batch script is explained."""
    code = re.fullmatch(EXIT_CODE, run.reason)
    return f"{run.reason}: {explanations.exit_code(int(code[1]))}" if code else run.reason


def _without_slurm(run: RunState, answer: Answer, now: float) -> View:
    """A job that Slurm does not know, or for which it did not answer."""
    if run.state in ("QUEUED", "UNKNOWN"):
        if answer.problem:
            return View(run, run.state, SILENT)
        return View(run, "LOST", "unknown to Slurm: cancelled, or purged")
    by_folder = _by_folder(run, now)
    return dataclasses.replace(by_folder, note=_joined(by_folder.note, SILENT if answer.problem else ""))


def _running(run: RunState, job: SlurmJob, now: float) -> View:
    on = f"on {job.nodes}" if job.nodes else ""
    if run.state in ("QUEUED", "UNKNOWN") or (run.state == "STOPPED" and _has_started_since(run, job, now)):
        return View(run, "RUNNING", _joined("starting", on), job)
    if run.state == "STOPPED":
        return View(run, "STOPPED", _joined(run.reason, f"its job is ending {on}".strip()), job)
    silent = "" if _is_fresh(run, now) else f"no heartbeat for {_silence(run, now)}"
    return View(run, "RUNNING", _joined(_restarts(run), on, silent), job)


def _has_started_since(run: RunState, job: SlurmJob, now: float) -> bool:
    """Whether Slurm has started the job again since the run stopped: the new start has not written its status yet."""
    elapsed = _seconds(job.elapsed)
    return elapsed is not None and run.heartbeat is not None and now - elapsed > run.heartbeat


def _seconds(elapsed: str) -> int | None:
    """A duration in Slurm's format, [days-][hours:]minutes:seconds; None for other text."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", elapsed)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((24 * days + hours) * 60 + minutes) * 60 + seconds


def _ended(run: RunState, job: SlurmJob, now: float) -> View:
    if run.state not in OPEN or (run.state == "RUNNING" and _is_fresh(run, now) and job.state == "COMPLETED"):
        return View(run, run.state, run.reason, job)
    if job.state == "COMPLETED":
        finished = (run.path / "results.json").exists()
        return View(run, "DONE", "", job) if finished else View(run, "LOST", "its job ended without a result", job)
    if job.state == "CANCELLED":
        return View(run, "CANCELLED", "", job)
    code = _exit_code(job)
    why = (
        explanations.exit_code(code)
        if job.state == "FAILED" and code
        else explanations.STATES.get(job.state, job.state)
    )
    return View(run, "FAILED", why, job)


def _exit_code(job: SlurmJob) -> int:
    """The exit code as in a shell, from Slurm's `code:signal`; 0 if Slurm does not report it."""
    match = re.fullmatch(r"(\d+):(\d+)", job.exit_code)
    if not match:
        return 0
    return int(match[1]) or (128 + int(match[2]) if int(match[2]) else 0)


def _explained(view: View) -> View:
    """Add the first error of the logs, if the run failed without recording a reason."""
    unexplained = not view.run.reason or view.run.reason.startswith("exit code")
    if view.state in ("FAILED", "LOST") and unexplained and (error := failures.first_error(view.run)):
        return dataclasses.replace(view, note=_joined(view.note, error.line))
    return view


# ---------------------------------------------------------------------------------------------------------------------
# Heartbeat and process


def _is_alive(run: RunState, now: float) -> bool:
    return _is_fresh(run, now) or _process_runs(run)


def _is_fresh(run: RunState, now: float) -> bool:
    return run.state == "RUNNING" and run.heartbeat is not None and now - run.heartbeat < contract.STALE_SECONDS


def _process_runs(run: RunState) -> bool:
    """Whether the process of a local run is running: a full disk stops the heartbeat, not the run."""
    return bool(run.job and process_runs(run.job))


def _is_starting(run: RunState) -> bool:
    """Whether a local run has a process that has not written its status yet: status.json is older, or missing."""
    submitted = seconds(run.job.time) if run.job else None
    if run.state == "RUNNING" or submitted is None:
        return False
    is_older = run.heartbeat is None or run.heartbeat < submitted + 1  # `submitted` has no fraction
    return is_older and _process_runs(run)


def process_runs(job: Job) -> bool | None:
    """Whether the process, or the container, of a local or docker job runs on this host; None if it is unknown."""
    if job.host != socket.gethostname():
        return None
    return (
        processes.container_runs(job.container) if job.container else processes.is_running(job.pid, job.process_start)
    )


def _silence(run: RunState, now: float) -> str:
    return "ever" if run.heartbeat is None else duration(now - run.heartbeat)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`, `2 d 4 h`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"


def _restarts(run: RunState) -> str:
    return f"{run.restarts} restart{'s' if run.restarts > 1 else ''}" if run.restarts else ""


def _cluster(run: RunState) -> str:
    return run.job.cluster if run.job else ""


def _joined(*notes: str) -> str:
    return "; ".join(note for note in notes if note)
