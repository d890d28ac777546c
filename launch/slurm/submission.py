"""A Slurm submission as a value: one task per GPU, on one or several nodes.

submitit writes the batch script and the worker's pickle, and gives each rank a log. Its requeue is not used, because it
runs scontrol in the worker, and containers have no scontrol. Instead the job saves a checkpoint and leaves a marker,
and the batch script requeues it (requeue.sh). There is no torchrun in between, so signals reach the ranks directly and
Slurm sees their exit codes.
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
"""Signals are ignored until Python has started and blocks them; otherwise an early signal would kill the job."""


@dataclass(frozen=True)
class Array:
    """Elements of a sweep that are queued as one array: element N has index N and the run folder SWEEP/N."""

    configs: Mapping[int, Config]
    """Number of the element -> its complete settings."""
    parallel: int
    """How many run at the same time."""
    choices: tuple[Config, ...] = ()
    """Settings that an element may choose when it starts."""

    def __str__(self) -> str:
        """In sbatch's notation, for example 0-2,5%4."""
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
    """GPUs per node; 0: train on the CPU."""
    tasks: int | None
    """Processes per node on the CPU; None: one."""
    nodes: int
    run: Path
    """Run folder."""
    is_new: bool
    """Whether the launcher chose the run folder, which must not exist then."""
    stamp: str
    """Part of the name of the submission's folder."""
    array: Array | None = None
    """The elements to queue, if `run` is the folder of a sweep."""

    @property
    def configs(self) -> tuple[Config, ...]:
        """All settings with which a job may run."""
        return (*self.array.configs.values(), *self.array.choices) if self.array else (self.config,)

    def numbered(self, number: int) -> Request:
        """The request with the `number`-th choice of names, for when the previous ones are taken."""
        if number == 1:
            return self
        run = self.run.with_name(f"{self.run.name}-{number}") if self.is_new else self.run
        return replace(self, run=run, stamp=f"{self.stamp}-{number}")


@dataclass(frozen=True)
class Member:
    """A run of a submission; an array has several."""

    run: Path
    """Run folder."""
    config: Config
    file: Path
    """File for these settings."""
    argv: tuple[str, ...]
    """The job's command line on the nodes."""
    index: int | None = None
    """Index in the array."""

    def job_id(self, id: str) -> str:
        """The job id of this run; `id` is the one that sbatch printed."""
        return id if self.index is None else f"{id}_{self.index}"


@dataclass(frozen=True)
class Submission:
    """What would be queued."""

    plan: Plan
    """sbatch and its script."""
    parameters: dict[str, Any]
    """submitit's parameters, from which the script is made."""
    python: str
    """Shell command that starts the worker."""
    members: tuple[Member, ...]
    run: Path
    """Run folder; for an array, the sweep's folder."""
    folder: Path
    """Folder of this submission, with code/ and the settings."""
    jobs: Path
    """submitit's folder; its name contains Slurm's patterns for job ids."""
    code: Snapshot
    caches: tuple[Path, ...]
    """Folders to create, because a container runtime mounts only existing ones."""
    token: str
    """Unique text in the job's comment."""

    @property
    def clusters(self) -> str:
        """The clusters in --sbatch, separated by commas; empty: the default one."""
        return str(self.parameters["additional_parameters"].get("clusters", ""))

    def __str__(self) -> str:
        lines = [f"# {self.code} -> {self.folder / 'code'}"]
        for member in self.members:
            processes = "each process" if member.index is None else f"each process of element {member.index}"
            lines.append(f"# {processes}: launch.slurm.worker.run({', '.join(map(repr, member.argv))})")
        return "\n".join([*lines, f"# checked first: {shlex.join([*self.plan.argv, '--test-only'])}", str(self.plan)])


def plan(request: Request, site: Site, environ: Mapping[str, str], directory: Path, code: Snapshot) -> Submission:
    """The submission for `request`.

    Raises:
        Refused: numbers, names or paths that are not valid for a job.
    """
    run, array = sites.safe_path("--output_dir", request.run), request.array
    folder = (run if array else run / contract.JOBS) / f"submitted-{request.stamp}"
    token = f"muster:{hashlib.sha256(bytes(folder)).hexdigest()[:16]}"  # unique, as the folder is created exclusively
    container = containers.wrap(
        site.container,
        site.image,
        python=sys.executable,
        mounts=_mounts(request, environ, directory) if site.container != "none" else [],
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
        **script.resources(site, gpus=request.gpus, tasks=request.tasks, nodes=request.nodes, name=run.name),
        "setup": [
            *script.setup(
                site,
                run=shlex.quote(str(run)) + ("/$SLURM_ARRAY_TASK_ID" if array else ""),
                directory=directory,
                token=token,
                python=sys.executable if site.container == "none" else "",
                variables=_variables(request, site, environ),
            ),
            *container.setup,
        ],
        "srun_args": [
            "--kill-on-bad-exit=1",
            "--wait=60",
            f"--cpus-per-task={site.cpus_per_task}",
            *container.srun_args,
        ],
        "teardown": script.teardown(),
        "additional_parameters": {
            **{"requeue": True, "chdir": str(directory), "propagate": "NONE"},
            **script.site_flags(site, token),
            **script.batch_logs(run / "%a" if array else run, "%A_%a" if array else "%j"),
            **({"array": str(array)} if array else {}),
        },
    }
    jobs = (run / "%a" if array else run) / contract.JOBS / "%j"
    cache_folders = caches.all_folders(environ) if site.container != "none" else ()
    text = script.text(parameters, python, jobs, len(array.configs) if array else None)
    sbatch = Plan(("sbatch",), (), directory, text)
    members = _members(request, run, folder)
    return Submission(sbatch, parameters, python, members, run, folder, jobs, code, cache_folders, token)


def _members(request: Request, run: Path, folder: Path) -> tuple[Member, ...]:
    if request.array is None:
        file = folder / "config.yaml"
        output = () if request.is_new else ("--output_dir", str(run))
        return (Member(run, request.config, file, (str(file), *output, *_of_this_start(request.config))),)
    members = []
    for number, config in sorted(request.array.configs.items()):
        file, own = folder / f"{number}.yaml", run / str(number)
        members.append(Member(own, config, file, (str(file), "--output_dir", str(own)), number))
    return tuple(members)


def _of_this_start(config: Config) -> tuple[str, ...]:
    """Flags of settings that the settings' file does not have, as a requeued or repeated start must not obey them."""
    overwrite = ("--overwrite_output_dir",) if config.run.overwrite_output_dir else ()
    path = config.run.resume_from_checkpoint
    return (*overwrite, *(("--resume_from_checkpoint", path) if path != "auto" else ()))


def _variables(request: Request, site: Site, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that the batch script exports for the worker."""
    threads = environ.get("OMP_NUM_THREADS", "")
    return {
        "ACCELERATE_USE_CPU": "false" if request.gpus else "true",
        "ACCELERATE_MIXED_PRECISION": request.config.training.mixed_precision or "no",
        ALLOCATOR_VARIABLE: environ.get(ALLOCATOR_VARIABLE, ALLOCATOR),
        contract.THREADS: threads if re.fullmatch("[1-9][0-9]*", threads) else site.cpus_per_task,
        contract.MASTER_ADDR: site.master_addr,
        **({"HF_HOME": str(caches.home(environ))} if site.container != "none" else {}),
        contract.RUN_FOLDER: str(request.run) if request.is_new else "",
    }


def _mounts(request: Request, environ: Mapping[str, str], directory: Path) -> list[Path]:
    """Folders to mount in a container. Not single files: a file may be replaced while the job waits."""
    read = reads.with_links(path for config in request.configs for path in reads.of_job((), config, directory))
    folders = [path if path.is_dir() else path.parent for path in read]
    for folder in reads.output_file_folder(request.config, directory):  # the job creates it if it does not exist
        folders.append(next(path for path in (folder, *folder.parents) if path.is_dir()))
    return [directory, *reads.real_places([request.run, *caches.all_folders(environ)]), *folders]
