"""The doctor's own job: plans it like a real one, queues it, and waits for it with a time limit.

Its batch script has the same parts as a real one (launch/slurm/script.py): resources, site flags, setup, container and
the Python command. Before Python starts, a shell script checks each node and prints its result through srun. If even
the first node does not see the folder, the exit code of the batch script reports it.
"""

from __future__ import annotations

import shlex
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from job.errors import JobError
from job.runtime import contract, package
from launch import caches, reads, sites
from launch.doctor import outcome
from launch.doctor.checks import START, Finding, Problem
from launch.plan import Plan
from launch.runs import explanations, slurm
from launch.sites import Site
from launch.slurm import containers, executor, queueing, script, snapshot
from launch.slurm.client import Answer

HERE = Path(__file__).parent
MINUTES = 5
"""Time limit of the job; its processes end by themselves earlier."""
POLL_SECONDS = 2.0


@dataclass(frozen=True)
class Request:
    """What the user requests."""

    gpus: int
    tasks: int | None
    nodes: int
    wait: int
    """Seconds for which the job may be pending."""
    folder: Path
    """The doctor's own folder, in the folder of the runs."""
    directory: Path

    @property
    def processes(self) -> int:
        return self.nodes * (self.gpus or self.tasks or 1)


@dataclass(frozen=True)
class Examination:
    """The job to queue."""

    request: Request
    plan: Plan
    asked: Plan
    """The same with the time limit of a real job, for the question whether Slurm would take that."""
    clusters: str
    """As in sbatch's --clusters."""
    token: str


def plan(request: Request, site: Site, environ: Mapping[str, str]) -> Examination:
    """The job for `request`; Refused for numbers, names or paths that are not valid for a job."""
    folder = sites.safe_path("the folder", request.folder)
    token = f"muster-doctor:{uuid.uuid4().hex[:16]}"
    mounts = [request.directory, *reads.real_places([folder, *caches.all_folders(environ)])]
    container = containers.wrap(
        site.container,
        site.image,
        python=sys.executable,
        mounts=mounts if site.container != "none" else [],
        directory=sites.safe_path("the working directory", request.directory),
        gpus=request.gpus > 0,
    )
    run, log = shlex.quote(str(folder)), shlex.quote(str(folder / "batch.log"))
    variables = {
        "ACCELERATE_USE_CPU": "false" if request.gpus else "true",
        contract.THREADS: site.cpus_per_task,
        contract.MASTER_ADDR: site.master_addr,
        "SUBMITIT_FOLDER": str(folder),
        "HF_HOME": str(caches.home(environ)),
    }
    resources = script.resources(
        site, gpus=request.gpus, tasks=request.tasks, nodes=request.nodes, name="muster-doctor"
    )
    parameters = {
        **resources,
        "signal_delay_s": 30,
        "setup": [
            f": > {log} || exit {outcome.NO_FOLDER}",
            f"exec >> {log} 2>&1",
            *script.setup(site, run=run, directory=request.directory, token=token, python="", variables=variables),
            *container.setup,
            *_probe(request, site, token),
        ],
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={site.cpus_per_task}", *container.srun_args],
        "additional_parameters": {
            **script.site_flags(site, token),
            **{"chdir": "/", "propagate": "NONE", "no-requeue": True, "output": "/dev/null", "error": "/dev/null"},
        },
    }
    node = folder / "code" / "launch" / "doctor" / "node.py"
    command = shlex.join([*container.python, "-u", "-P", str(node), str(folder), str(request.gpus)])
    texts = [script.batch({**parameters, "time": minutes}, command, folder) for minutes in (MINUTES, resources["time"])]
    own, asked = (Plan(("sbatch",), (), request.directory, text) for text in texts)
    return Examination(request, own, asked, site.clusters, token)


def _probe(request: Request, site: Site, token: str) -> list[str]:
    """Lines of the batch script that check each node, once per node."""
    nodes = shlex.quote(str(request.folder / "nodes.txt"))
    arguments = [str(request.folder), token, sys.executable if site.container == "none" else "",
                 site.container, site.image]  # fmt: skip
    srun = f"srun --ntasks={request.nodes} --ntasks-per-node=1 --kill-on-bad-exit=0 --unbuffered"
    probe = (HERE / "probe.sh").read_text(encoding="utf-8")
    return [
        f"{srun} bash -c {shlex.quote(probe)} bash {shlex.join(arguments)} > {nodes}",
        f'[ "$(grep -c "|ok|" {nodes})" = {request.nodes} ] || exit {outcome.BAD_NODE}',
        f"seen() {{ ls {shlex.quote(str(request.folder))} | grep -c ^seen-by-; }}",
        f'for _ in {{1..10}}; do [ "$(seen)" = {request.nodes} ] && break; sleep 1; done',
        f'[ "$(seen)" = {request.nodes} ] || exit {outcome.BAD_NODE}',
    ]


def queue(examination: Examination) -> Answer:
    """Queue the job; one that was interrupted meanwhile is cancelled.

    Raises:
        Problem: Slurm rejects it, or its files cannot be written.
    """
    path = _write(examination)
    with queueing.outside_any_job(), executor.interrupts_held() as interrupts:
        try:
            job = executor.queue(
                ["sbatch", "--parsable", str(path)], examination.token, examination.clusters, interrupts
            )
        except JobError as error:
            raise Problem(str(error), "fix what sbatch reports") from None
    if interrupts.count:
        slurm.scancel(job.id, job.cluster)
        raise KeyboardInterrupt
    return job


def _write(examination: Examination) -> Path:
    """Write the job's files; returns the path of its batch script."""
    folder = examination.request.folder
    path = folder / "job.sh"
    try:
        (folder / "token").write_text(examination.token + "\n", encoding="ascii")
        path.write_text(examination.plan.script, encoding="utf-8")
        snapshot.copy(snapshot.describe(package.ROOT), folder / "code")
    except OSError as error:
        raise Problem(f"{folder} cannot be written: {error.strerror}", "make room there") from None
    return path


def wait(job: Answer, seconds: int, report: Callable[[str], object], limit: float = 60.0 * (MINUTES + 1)) -> str:
    """Wait until the job has ended; returns the nodes on which it ran.

    Args:
        job: as sbatch answered.
        seconds: how long it may be pending.
        report: called with the reason why it is pending, whenever the reason changes.
        limit: how many seconds it may run.

    Raises:
        Problem: it did not start or end in time, and was cancelled.
    """
    until, reason, began = time.monotonic() + seconds, "", 0.0
    try:
        while True:
            state = slurm.squeue([job.id], job.cluster).jobs.get(job.id)
            if state and state.has_ended:
                return state.nodes
            if state and state.runs and not began:
                began = time.monotonic()
                until = began + limit
            if state and state.waits and state.reason not in (reason, "None"):
                reason = state.reason
                report(f"job {job.id} {explanations.pending(reason)}")
            if time.monotonic() > until:
                raise _timeout(job.id, reason, bool(began), seconds)
            time.sleep(POLL_SECONDS)
    except BaseException:
        slurm.scancel(job.id, job.cluster)
        raise


def _timeout(job: str, reason: str, started: bool, seconds: int) -> Problem:
    if started:
        return Problem(f"job {job} did not end in time and was cancelled",
                       "look for a node that hangs: the logs, scontrol show job")  # fmt: skip
    pending = explanations.pending(reason or "None")
    return Problem(f"job {job} did not start within {seconds} s and was cancelled: it {pending} ({reason or 'None'})",
                   "try again later, with a longer --wait or in another --partition")  # fmt: skip


def run(examination: Examination, report: Callable[[str], object]) -> list[Finding]:
    """Queue the job, wait for its end, and read its results."""
    request = examination.request
    submitted = time.time()
    try:
        job = queue(examination)
        nodes = wait(job, request.wait, report)
    except Problem as problem:
        return [Finding(START.name, "failed", problem.detail, problem.remedy)]
    started = Finding(START.name, "ok", f"job {job.id} ran on {nodes or 'its nodes'}")
    return [started, *outcome.read(request.folder, job, request.processes, submitted)]
