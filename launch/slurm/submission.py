"""What would be queued on a Slurm cluster: one task a GPU, on one or many nodes, as a value.

submitit writes the batch script and the worker's pickle, and gives each rank its log. Its own requeue is not used: it
runs scontrol in the worker, which a container does not have. Here the job saves and leaves a marker, and the batch
script requeues (requeue.sh). There is no torchrun in between: signals reach the ranks, and the exit code reaches Slurm.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from job.config import Config
from job.runtime import contract
from job.runtime.environment import ALLOCATOR, ALLOCATOR_VARIABLE
from launch import caches, reads, sites
from launch.plan import Plan
from launch.sites import Site
from launch.slurm import containers, script
from launch.slurm.snapshot import Snapshot

IGNORE_SIGNALS = ("sh", "-c", 'trap "" TERM USR2; exec "$@"', "sh")
"""A signal in the first moments would kill the job; the worker's own first act is to hold signals back."""


@dataclass(frozen=True)
class Array:
    """Elements of a sweep that are queued together: element N has index N in the array and the run folder SWEEP/N."""

    configs: Mapping[int, Config]
    """Number of an element -> all its settings."""
    parallel: int
    """How many run at a time."""

    def __str__(self) -> str:
        """In sbatch's form, as 0-2,5%4."""
        ranges: list[list[int]] = []
        for number in sorted(self.configs):
            if ranges and ranges[-1][-1] == number - 1:
                ranges[-1] = [ranges[-1][0], number]
            else:
                ranges.append([number])
        return f"{','.join('-'.join(map(str, ends)) for ends in ranges)}%{min(self.parallel, len(self.configs))}"


@dataclass(frozen=True)
class Request:
    """What the user asks for."""

    config: Config
    """All settings of the job."""
    gpus: int
    """GPUs of a node; 0: train on the CPU."""
    tasks: int | None
    """Processes of a node, on the CPU; None: one."""
    nodes: int
    run: Path
    """Run folder."""
    is_new: bool
    """The launcher chose the run folder: it must not be there yet."""
    stamp: str
    """Names this submission in the run folder."""
    array: Array | None = None
    """The elements to queue, where `run` is the folder of a sweep."""

    def numbered(self, number: int) -> Request:
        """The request under its `number`-th names, for where the ones before are taken."""
        if number == 1:
            return self
        run = self.run.with_name(f"{self.run.name}-{number}") if self.is_new else self.run
        return replace(self, run=run, stamp=f"{self.stamp}-{number}")


@dataclass(frozen=True)
class Member:
    """A run of a submission: of an array there are several."""

    run: Path
    """Run folder."""
    config: Config
    file: Path
    """The file that these settings are written to."""
    argv: tuple[str, ...]
    """The job's command line on the nodes."""
    index: int | None = None
    """In the array."""

    def job_id(self, id: str) -> str:
        """Its own job id, of the one that sbatch gave."""
        return id if self.index is None else f"{id}_{self.index}"


@dataclass(frozen=True)
class Submission:
    """What would be queued."""

    plan: Plan
    """sbatch and its script."""
    parameters: dict[str, Any]
    """submitit's, under Slurm's names; the script is made of them."""
    python: str
    """Shell words that start the worker."""
    members: tuple[Member, ...]
    run: Path
    """Run folder; of an array the sweep's folder."""
    folder: Path
    """This submission's own: code/ and the settings."""
    jobs: Path
    """submitit's folder, with Slurm's patterns for ids."""
    code: Snapshot
    caches: tuple[Path, ...]
    """Folders to make: a container runtime binds only what is there."""
    token: str
    """In the job's comment, and in no other job's."""

    def __str__(self) -> str:
        facts = [f"# {self.code} -> {self.folder / 'code'}"]
        for member in self.members:
            whose = "each process" if member.index is None else f"each process of element {member.index}"
            facts.append(f"# {whose}: launch.slurm.worker.run({', '.join(map(repr, member.argv))})")
        return "\n".join([*facts, f"# checked first: {shlex.join([*self.plan.argv, '--test-only'])}", str(self.plan)])


def plan(request: Request, at: Site, environ: Mapping[str, str], directory: Path, code: Snapshot) -> Submission:
    """The submission for `request`.

    Raises:
        Refused: numbers, names or paths that make no job.
    """
    run, array = sites.safe_path("--output_dir", request.run), request.array
    folder = (run if array else run / contract.JOBS) / f"submitted-{request.stamp}"
    token = f"muster:{hashlib.sha256(bytes(folder)).hexdigest()[:16]}"  # the folder is made exclusively
    container = containers.enter(
        at.container,
        at.image,
        python=sys.executable,
        mounts=_mounts(request, environ, directory) if at.container != "none" else [],
        directory=sites.safe_path("the working directory", directory),
        gpus=request.gpus > 0,
    )
    python = shlex.join(
        [
            *IGNORE_SIGNALS,
            *container.python,
            "-u",
            "-P",
            str(folder / "code" / "launch" / "slurm" / "worker.py"),
        ]
    )
    parameters = {
        **script.resources(at, gpus=request.gpus, tasks=request.tasks, nodes=request.nodes, name=run.name),
        "setup": [
            *script.setup(
                at,
                run=shlex.quote(str(run)) + ("/$SLURM_ARRAY_TASK_ID" if array else ""),
                directory=directory,
                token=token,
                python=sys.executable if at.container == "none" else "",
                variables=_variables(request, at, environ),
            ),
            *container.setup,
        ],
        "srun_args": ["--kill-on-bad-exit=1", "--wait=60", f"--cpus-per-task={at.cpus_per_task}", *container.srun_args],
        "teardown": script.teardown(),
        "additional_parameters": {
            **{"requeue": True, "chdir": str(directory), "propagate": "NONE"},
            **script.site_flags(at, token),
            **({"array": str(array)} if array else {}),
        },
    }
    jobs = (run / "%a" if array else run) / contract.JOBS / "%j"
    made = caches.all_folders(environ) if at.container != "none" else ()
    text = script.text(parameters, python, jobs, len(array.configs) if array else None)
    sbatch = Plan(("sbatch",), (), directory, text)
    members = _members(request, run, folder)
    return Submission(sbatch, parameters, python, members, run, folder, jobs, code, made, token)


def _members(request: Request, run: Path, folder: Path) -> tuple[Member, ...]:
    if request.array is None:
        file = folder / "config.yaml"
        output = () if request.is_new else ("--output_dir", str(run))
        return (Member(run, request.config, file, (str(file), *output)),)
    made = []
    for number, config in sorted(request.array.configs.items()):
        file, own = folder / f"{number}.yaml", run / str(number)
        made.append(Member(own, config, file, (str(file), "--output_dir", str(own)), number))
    return tuple(made)


def _variables(request: Request, at: Site, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that the batch script exports for the worker."""
    users = environ.get("OMP_NUM_THREADS", "")
    return {
        "ACCELERATE_USE_CPU": "false" if request.gpus else "true",
        "ACCELERATE_MIXED_PRECISION": request.config.training.mixed_precision or "no",
        ALLOCATOR_VARIABLE: environ.get(ALLOCATOR_VARIABLE, ALLOCATOR),
        contract.THREADS: users if re.fullmatch("[1-9][0-9]*", users) else at.cpus_per_task,
        contract.MASTER_ADDR: at.master_addr,
        **({"HF_HOME": str(caches.home(environ))} if at.container != "none" else {}),
        contract.RUN_FOLDER: str(request.run) if request.is_new else "",
    }


def _mounts(request: Request, environ: Mapping[str, str], directory: Path) -> list[Path]:
    """What a container must see: folders, since a file may be replaced while the job waits."""
    configs = request.array.configs.values() if request.array else (request.config,)
    read = reads.with_links(path for config in configs for path in reads.of_job((), config, directory))
    folders = [path if path.is_dir() else path.parent for path in read]
    for folder in reads.answers_folder(request.config, directory):  # the job makes it where it is not there
        folders.append(next(path for path in (folder, *folder.parents) if path.is_dir()))
    return [directory, *reads.real_places([request.run, *caches.all_folders(environ)]), *folders]
