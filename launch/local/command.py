"""Train on this machine: one process per GPU, or some on the CPU.

GPUs and a single process use `accelerate launch`, which knows GPUs that need special settings. With --cpu it starts
only one process, so several CPU processes use torch.distributed.run. Both are run by this interpreter, not found on
PATH, and accelerate gets its configuration file, so that a plan means the same on every machine. Alternative
considered: starting the ranks ourselves, which would be a launcher to maintain.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from job.errors import Refused
from job.runtime import environment, package
from launch import parsing, supervisor
from launch.plan import Plan

TRAIN = package.JOB / "train.py"
HERE = Path(__file__).parent
DEVICE = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")


@dataclass(frozen=True)
class Machine:
    """The resources of this machine."""

    gpus: int
    """GPUs that are visible to a process."""
    cores: int
    """Cores that a process may use."""
    omp_num_threads: str
    """OMP_NUM_THREADS as set by the user; empty if unset."""


@dataclass(frozen=True)
class Request:
    """What the user asks for."""

    job: tuple[str, ...]
    """The job's command line: an optional recipe, then flags."""
    mixed_precision: str | None
    """The job's setting; None: the launcher's default, `no`."""
    gpus: int | None
    """Number of GPUs; None: all; 0: train on the CPU."""
    tasks: int | None
    """Number of processes on the CPU; None: one."""


def inspect_machine(environ: Mapping[str, str]) -> Machine:
    """Inspect this machine, without importing torch."""
    return Machine(_visible_gpus(environ), environment.cores(), environ.get("OMP_NUM_THREADS", ""))


def plan(request: Request, machine: Machine, directory: Path) -> Plan:
    """The command for `request`; Refused if this machine cannot run it."""
    count = gpus(request.gpus, machine.gpus)
    parsing.refuse_tasks(count, request.tasks)
    if not count and (request.tasks or 1) > 1:
        return _with_torch(request, machine, directory)
    return _with_accelerate(request, machine, directory, count)


def run(plan: Plan, log: Path) -> int:
    """Run `plan` and return the job's exit code; its output is copied to `log`."""
    return supervisor.run(plan, log=log)


def require_training() -> None:
    """Refused if the packages for training are not installed."""
    if importlib.util.find_spec("accelerate") is None:
        raise Refused("the packages for training are not installed: run `make setup`, or pip install -e '.[train]'")


def gpus(asked: int | None, there: int) -> int:
    """The number of GPUs to use: as requested, else all; Refused if there are fewer."""
    if asked is not None and asked > there:
        raise Refused(f"--gpus {asked}: only {there} are visible (in CUDA_VISIBLE_DEVICES, else nvidia-smi -L)")
    return there if asked is None else asked


def _with_accelerate(request: Request, machine: Machine, directory: Path, gpus: int) -> Plan:
    flags = {
        "--config_file": HERE / "accelerate.yaml",
        "--num_processes": gpus or 1,
        "--num_machines": 1,
        "--mixed_precision": request.mixed_precision or "no",
        "--dynamo_backend": "no",
        "--main_process_port": 0,
        "--num_cpu_threads_per_process": _threads(machine, gpus or 1),
    }
    kind = ["--cpu"] if not gpus else ["--multi_gpu"] if gpus > 1 else []
    words = [*kind, *(str(word) for pair in flags.items() for word in pair)]
    return Plan(_quietly("accelerate.commands.launch", *words, request=request), (), directory)


def _with_torch(request: Request, machine: Machine, directory: Path) -> Plan:
    processes = request.tasks or 1
    settings = {
        "ACCELERATE_USE_CPU": "true",  # otherwise each process assumes that it is the only one
        "ACCELERATE_MIXED_PRECISION": request.mixed_precision or "no",
        "OMP_NUM_THREADS": str(_threads(machine, processes)),
    }
    words = _quietly("torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), request=request)
    return Plan(words, tuple(settings.items()), directory)


def _quietly(launcher: str, *flags: str, request: Request) -> tuple[str, ...]:
    """The command line of a launcher's module; -P: modules in the working directory are not imported."""
    return (sys.executable, "-P", str(HERE / "wrap_launcher.py"), launcher, *flags, str(TRAIN), *request.job)


def _threads(machine: Machine, processes: int) -> int:
    """OpenMP threads of each process: as set by the user, else an equal share of the cores."""
    if re.fullmatch("[1-9][0-9]*", machine.omp_num_threads):
        return int(machine.omp_num_threads)
    return max(1, machine.cores // processes)


def _visible_gpus(environ: Mapping[str, str]) -> int:
    """GPUs that CUDA would show."""
    named = named_gpus(environ)
    if named is not None:
        return min(len(named), 1) if any(name.startswith("MIG-") for name in named) else len(named)
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return 0
    lines = listed.stdout.splitlines()
    # CUDA shows a process a single MIG device, and no whole GPU in addition.
    return (
        1 if any(line.lstrip().startswith("MIG ") for line in lines) else sum(line.startswith("GPU ") for line in lines)
    )


def named_gpus(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """The devices in CUDA_VISIBLE_DEVICES; like CUDA, only up to the first invalid one (-1, NoDevFiles).

    None if it is not set: all GPUs.
    """
    named = environ.get("CUDA_VISIBLE_DEVICES")
    return None if named is None else tuple(takewhile(DEVICE.fullmatch, (name.strip() for name in named.split(","))))
