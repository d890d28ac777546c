"""Train on this machine: one process per GPU, or some on the CPU.

GPUs and a single process use `accelerate launch`, which knows GPUs that need special settings. With --cpu it starts
only one process, so several CPU processes use torch.distributed.run. Both are run by this interpreter, not found on
PATH, and accelerate gets its configuration file, so that a plan means the same on every machine. Alternative
considered: starting the ranks ourselves, which would be a launcher to maintain.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from job.errors import Refused
from job.runtime import environment, package
from launch import parsing, supervisor
from launch.local import gpus
from launch.local.gpus import Gpus
from launch.plan import Plan

TRAIN = package.JOB / "train.py"
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Machine:
    """The resources of this machine."""

    gpus: Gpus
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
    return Machine(gpus.inspect(environ), environment.cores(), environ.get("OMP_NUM_THREADS", ""))


def plan(request: Request, machine: Machine, directory: Path) -> Plan:
    """The command for `request`; Refused if this machine cannot run it."""
    count = machine.gpus.to_use(request.gpus)
    parsing.refuse_tasks(count, request.tasks)
    if not count and (request.tasks or 1) > 1:
        return _with_torch(request, machine, directory)
    return _with_accelerate(request, machine, directory, count)


def run(plan: Plan, log: Path) -> int:
    """Run `plan` and return the job's exit code; its output is copied to `log`."""
    return supervisor.run(plan, log=log)


def refuse_processes_of_another_launcher(environ: Mapping[str, str]) -> None:
    """Refused in one of several processes of another launcher: each of them would start the whole job."""
    size = environ.get("WORLD_SIZE", "")
    if size.isdigit() and int(size) > 1:
        raise Refused(f"WORLD_SIZE={size} is set, as in the processes of torchrun or accelerate launch, but this "
                      "launcher starts the processes itself: start it once, alone; if the variable is left over from "
                      "something else, unset it")  # fmt: skip


def require_training() -> None:
    """Refused if the packages for training are not installed."""
    if importlib.util.find_spec("accelerate") is None:
        raise Refused("the packages for training are not installed: run `make setup`, or pip install -e '.[train]'")


def _with_accelerate(request: Request, machine: Machine, directory: Path, count: int) -> Plan:
    flags = {
        "--config_file": HERE / "accelerate.yaml",
        "--num_processes": count or 1,
        "--num_machines": 1,
        "--mixed_precision": request.mixed_precision or "no",
        "--dynamo_backend": "no",
        "--main_process_port": 0,
        "--num_cpu_threads_per_process": _threads(machine, count or 1),
    }
    on_cpu = machine.gpus.cpu_is_requested(request.gpus, request.tasks)
    kind = ["--multi_gpu"] if count > 1 else ["--cpu"] if on_cpu and not count else []
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
