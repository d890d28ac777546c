"""How far a sweep is: which of its runs are finished, which wait or run, and which are to be started."""

from __future__ import annotations

import shutil
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from job.errors import Refused
from launch import records
from launch.runs import folders, processes, states
from launch.runs.states import View
from launch.slurm import client
from launch.sweeps.sweep import Element, Sweep

KEPT = ("DONE", "NEEDS_HUMAN")
"""States in which a run is not started again: it has ended well, or somebody has to look first."""


@dataclass(frozen=True)
class Progress:
    """The runs of a sweep by what is to be done about them."""

    to_start: tuple[Element, ...]
    """Missing, or ended without a result."""
    left_alone: tuple[View, ...]
    """Finished, or waiting or running now."""

    def __str__(self) -> str:
        counts = Counter(view.state for view in self.left_alone)
        return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "none"


def look(sweep: Sweep) -> Progress:
    """The runs as their folders and Slurm say.

    Raises:
        Refused: Slurm does not answer about runs that it may have.
    """
    there = {element.run: element for element in sweep.elements if folders.is_run(element.run)}
    views, problem = states.look(there, time.time())
    if problem:
        raise Refused(f"{states.SILENT} ({problem}): it may have some of these runs, so nothing was started; try again")
    unrecorded = [view for view in views if view.state == "QUEUED" and view.run.job is None]
    known = client.my_jobs() if unrecorded and shutil.which("squeue") else []
    kept = [view for view in views if _is_kept(view, known)]
    names = {view.run.path for view in kept}
    to_start = tuple(element for element in sweep.elements if element.run not in names)
    return Progress(to_start, tuple(kept))


def _is_kept(view: View, known: Sequence[client.Job]) -> bool:
    if view.state in KEPT or (view.slurm is not None and not view.slurm.has_ended):
        return True
    job = view.run.job
    if view.state == "QUEUED" and job is None:  # its submission was cut short: Slurm has it or not
        owner = str(records.read_status(view.run.path).get("owner", ""))
        return client.of_owner(owner, view.run.name, known) is not None
    if view.state == "RUNNING" and job is not None and job.pid and job.host == socket.gethostname():
        return processes.is_running(job.pid, job.process_start)  # its last heartbeat may be younger than its end
    return view.state in ("QUEUED", "RUNNING")
