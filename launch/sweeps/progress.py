"""Progress of a sweep: which runs are finished, queued or running, and which have to be started."""

from __future__ import annotations

import shutil
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from job.errors import Refused
from job.run import lock
from launch.runs import folders, processes, states
from launch.runs.states import View
from launch.slurm import client
from launch.sweeps.sweep import Element, Sweep

FINAL_STATES = ("DONE", "NEEDS_HUMAN")
"""States in which a run is not started again: it has finished, or somebody has to inspect it first."""


@dataclass(frozen=True)
class Progress:
    """The runs of a sweep: those to start, and the others."""

    to_start: tuple[Element, ...]
    """Runs that are missing or ended without a result."""
    left_alone: tuple[View, ...]
    """Runs that are finished, queued or running."""

    def __str__(self) -> str:
        counts = Counter(view.state for view in self.left_alone)
        return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"


def read(sweep: Sweep, clusters: str) -> Progress:
    """The progress according to the run folders and Slurm, whose jobs may be on `clusters` (empty: the default one).

    Raises:
        Refused: Slurm does not answer, and it may have queued some of the runs.
    """
    existing = [element.run for element in sweep.elements if folders.is_run(element.run)]
    views, problem = states.read(existing, time.time())
    if problem:
        raise Refused(f"{states.SILENT} ({problem}): it may have some of these runs, so nothing was started; try again")
    unrecorded = [view for view in views if view.state == "QUEUED" and view.run.job is None]
    jobs = client.my_jobs(clusters) if unrecorded and shutil.which("squeue") else []
    left_alone = [view for view in views if _is_left_alone(view, jobs)]
    paths = {view.run.path for view in left_alone}
    to_start = tuple(element for element in sweep.elements if element.run not in paths)
    return Progress(to_start, tuple(left_alone))


def _is_left_alone(view: View, jobs: Sequence[client.Job]) -> bool:
    if view.state in FINAL_STATES or (view.slurm is not None and not view.slurm.has_ended):
        return True
    job = view.run.job
    if view.state == "QUEUED" and job is None:  # its submission was interrupted: Slurm may have the job
        owner = str(lock.read_status(view.run.path).get("owner", ""))
        return client.find_by_owner(owner, view.run.name, jobs) is not None
    if view.state == "RUNNING" and job is not None and job.pid and job.host == socket.gethostname():
        return processes.is_running(job.pid, job.process_start)  # a recent heartbeat does not prove that it still runs
    return view.state in ("QUEUED", "RUNNING")
