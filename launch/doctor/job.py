"""The doctor's own job: planned as a real one is, queued, and waited for with a bound.

Its batch script has the parts of a real one (launch/slurm/script.py): resources, site flags, setup, container, the
worker's Python. Before Python a shell looks around on each node and answers through srun. If not even the first node
sees the folder, the exit code tells.
"""

from __future__ import annotations

import shlex
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.errors import JobError
from job.runtime import contract, environment
from launch import caches, reads, sites
from launch.doctor import outcome
from launch.doctor.checks import START, Finding, Problem
from launch.plan import Plan
from launch.runs import explanations
from launch.runs import slurm as asked
from launch.sites import Site
from launch.slurm import containers, executor, queueing, script, snapshot

HERE = Path(__file__).parent
MINUTES = 5
"""Limit of the job; its processes end by themselves before."""
POLL = 2.0


@dataclass(frozen=True)
class Request:
    """What the user asks for."""

    gpus: int
    tasks: int | None
    nodes: int
    wait: int
    """Seconds that the job may wait for its start."""
    folder: Path
    """The doctor's own folder, next to the folders of runs."""
    directory: Path

    @property
    def processes(self) -> int:
        return self.nodes * (self.gpus or self.tasks or 1)


@dataclass(frozen=True)
class Examination:
    """What would be queued."""

    request: Request
    plan: Plan
    parameters: Mapping[str, Any]
    token: str


def plan(request: Request, at: Site, environ: Mapping[str, str]) -> Examination:
    """The job of `request`; Refused for numbers, names or paths that make no job."""
    folder = sites.safe_path("the folder", request.folder)
    token = f"muster-doctor:{uuid.uuid4().hex[:16]}"
    places = [request.directory, *reads.real_places([folder, *caches.all_folders(environ)])]
    container = containers.enter(
        at.container,
        at.image,
        python=sys.executable,
        mounts=places if at.container != "none" else [],
        directory=sites.safe_path("the working directory", request.directory),
        gpus=request.gpus > 0,
    )
    run, log = shlex.quote(str(folder)), shlex.quote(str(folder / "batch.log"))
    variables = {
        contract.THREADS: at.cpus_per_task,
        contract.MASTER_ADDR: at.master_addr,
        "SUBMITIT_FOLDER": str(folder),
        "HF_HOME": str(caches.home(environ)),
    }
    resources = script.resources(at, gpus=request.gpus, tasks=request.tasks, nodes=request.nodes, name="muster-doctor")
    parameters = {
        **resources,
        "time": MINUTES,
        "signal_delay_s": 30,
        "setup": [
            f": > {log} || exit {outcome.NO_FOLDER}",
            f"exec >> {log} 2>&1",
            *script.setup(at, run=run, directory=request.directory, token=token, python="", variables=variables),
            *container.setup,
            *_probe(request, at, token),
        ],
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={at.cpus_per_task}", *container.srun_args],
        "additional_parameters": {
            **script.site_flags(at, token),
            **{"chdir": "/", "propagate": "NONE", "no-requeue": True, "output": "/dev/null", "error": "/dev/null"},
        },
    }
    node = folder / "code" / "launch" / "doctor" / "node.py"
    command = shlex.join([*container.python, "-u", "-P", str(node), str(folder), str(request.gpus)])
    text = script.batch(parameters, command, folder)
    return Examination(request, Plan(("sbatch",), (), request.directory, text), parameters, token)


def _probe(request: Request, at: Site, token: str) -> list[str]:
    """Lines that look around on each node."""
    nodes = shlex.quote(str(request.folder / "nodes.txt"))
    facts = [str(request.folder), token, sys.executable if at.container == "none" else "",
             at.container, at.image]  # fmt: skip
    once = f"srun --ntasks={request.nodes} --ntasks-per-node=1 --kill-on-bad-exit=0 --unbuffered"
    probe = (HERE / "probe.sh").read_text(encoding="utf-8")
    return [
        f"{once} bash -c {shlex.quote(probe)} bash {shlex.join(facts)} > {nodes}",
        f'[ "$(grep -c "|ok|" {nodes})" = {request.nodes} ] || exit {outcome.BAD_NODE}',
        f"seen() {{ ls {shlex.quote(str(request.folder))} | grep -c ^seen-by-; }}",
        f'for _ in {{1..10}}; do [ "$(seen)" = {request.nodes} ] && break; sleep 1; done',
        f'[ "$(seen)" = {request.nodes} ] || exit {outcome.BAD_NODE}',
    ]


def queue(examination: Examination) -> str:
    """The id of the queued job.

    Raises:
        Problem: Slurm does not take it.
    """
    request = examination.request
    (request.folder / "token").write_text(examination.token + "\n", encoding="ascii")
    path = request.folder / "job.sh"
    path.write_text(examination.plan.script, encoding="utf-8")
    snapshot.take(snapshot.look(environment.ROOT), request.folder / "code")
    with queueing.outside_any_job():
        try:
            return executor.queue(["sbatch", "--parsable", str(path)], examination.token).id
        except JobError as error:
            raise Problem(str(error), "fix what sbatch reports") from None


def wait(job: str, seconds: int, tell: Callable[[str], object], limit: float = 60.0 * (MINUTES + 1)) -> str:
    """Wait until the job has ended; where it ran.

    Args:
        job: its id.
        seconds: that it may wait for its start.
        tell: called with the reason why it waits.
        limit: seconds that it may run.

    Raises:
        Problem: it did not start, or not end, in time, and was cancelled.
    """
    until, reason, began = time.monotonic() + seconds, "", 0.0
    try:
        while True:
            answer = asked.squeue([job])
            found = answer.jobs.get(job)
            if found and found.has_ended:
                return found.nodes
            if found and found.runs and not began:
                began = time.monotonic()
                until = began + limit
            if found and found.waits and found.reason not in (reason, "None"):
                reason = found.reason
                tell(f"job {job} {explanations.pending(reason)}")
            if time.monotonic() > until:
                raise _too_late(job, reason, bool(began), seconds)
            time.sleep(POLL)
    except BaseException:
        asked.scancel(job)
        raise


def _too_late(job: str, reason: str, started: bool, seconds: int) -> Problem:
    if started:
        return Problem(f"job {job} did not end in time and was cancelled",
                       "look for a node that hangs: the logs, scontrol show job")  # fmt: skip
    pending = explanations.pending(reason or "None")
    return Problem(f"job {job} did not start within {seconds} s and was cancelled: it {pending} ({reason or 'None'})",
                   "try again later, with a longer --wait or in another --partition")  # fmt: skip


def run(examination: Examination, tell: Callable[[str], object]) -> list[Finding]:
    """Queue the job, wait, and read what it found."""
    request = examination.request
    submitted = time.time()
    try:
        job = queue(examination)
        nodes = wait(job, request.wait, tell)
    except Problem as problem:
        return [Finding(START.name, "failed", problem.detail, problem.remedy)]
    started = Finding(START.name, "ok", f"job {job} ran on {nodes or 'its nodes'}")
    return [started, *outcome.read(request.folder, job, request.processes, submitted)]
