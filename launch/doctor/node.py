"""The checks of each process of the doctor's job, run as `node.py FOLDER GPUS`: the only part that imports torch.

The ranks connect like those of a real job (launch/slurm/rendezvous.py), or through a file if there is no Slurm. Each
result is written immediately, so that the results of a process that hangs or is killed are not lost. Checks that do not
need other processes come first, because a failing rank ends the others.
"""

from __future__ import annotations

import datetime
import faulthandler
import json
import os
import platform
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # with -P, Python does not add our folder to the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from job.errors import JobError
from launch import caches
from launch.doctor.checks import (
    CLOCK,
    CLOCK_REMEDY,
    CLOCK_SECONDS,
    DISK,
    ENVIRONMENT,
    FAILED,
    GPU,
    GROUP,
    NAMES,
    OK,
    REDUCE,
    SHM,
    Check,
    Problem,
)  # fmt: skip

MAX_SECONDS = 150.0
"""Time limit of a process, which then prints its stacks and ends."""
JOIN_SECONDS = 60.0
DISK_BYTES, SHM_BYTES = 1e9, 128e6
PACKAGES = ("torch", "transformers", "datasets", "accelerate")
REDUCE_SIZE = 16 * 2**20
"""Size of the summed tensor: 64 MB in fp32."""
ROUNDS = 3


@dataclass
class Rank:
    """This process."""

    folder: Path
    gpus: int
    """GPUs per node; 0: use the CPU."""
    number: int = 0
    world: int = 1
    local: int = 0
    slurm: Any = None
    """submitit's description of the rank; None outside Slurm."""
    store: Any = None
    """Rank 0's store, kept so that it is not closed before the process ends."""
    host: str = field(default_factory=lambda: os.environ.get("SLURMD_NODENAME") or socket.gethostname())
    findings: list[dict[str, str]] = field(default_factory=list)

    def check(self, check: Check, examine: Callable[[Rank], str]) -> bool:
        """Run a check and write its result; returns whether it passed."""
        try:
            self.note(check, OK, examine(self))
            return True
        except Problem as problem:
            self.note(check, FAILED, problem.detail, problem.remedy)
            return False
        except Exception as error:
            self.note(check, FAILED, f"{type(error).__name__}: {error}"[:200], "the traceback is in the logs")
            raise

    def note(self, check: Check, state: str, detail: str, remedy: str = "") -> None:
        self.findings.append({"check": check.name, "state": state, "detail": detail, "remedy": remedy})
        report = {"rank": self.number, "host": self.host, "time": time.time(), "findings": self.findings}
        path = self.folder / f"rank-{self.number}.json"
        aside = path.with_suffix(".part")
        aside.write_text(json.dumps(report), encoding="utf-8")
        aside.replace(path)


def main(folder: Path, gpus: int) -> int:
    """Run all checks; returns 0 if all pass, else 1, which ends the other ranks too."""
    faulthandler.dump_traceback_later(MAX_SECONDS, exit=True)
    rank = _rank(folder, gpus)
    if not rank.check(ENVIRONMENT, environment):
        return 1
    passed = [rank.check(check, examine) for check, examine in ((GPU, gpu), (DISK, disk), (SHM, shm), (NAMES, names))]
    joined = passed[0] and passed[-1] and rank.check(GROUP, join)
    if joined:
        passed += [rank.check(REDUCE, all_reduce), rank.check(CLOCK, clock)]
        leave()
    return 0 if joined and all(passed) else 1


def _rank(folder: Path, gpus: int) -> Rank:
    if "SUBMITIT_FOLDER" not in os.environ:
        number, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        return Rank(folder, gpus, number, world, number)
    number, world, local = (int(os.environ[f"SLURM_{name}"]) for name in ("PROCID", "NTASKS", "LOCALID"))
    return Rank(folder, gpus, number, world, local)


def environment(rank: Rank) -> str:
    """Check that the packages of the job can be imported."""
    from job.runtime import environment as variables

    try:
        _name(rank)
        variables.prepare()
        import accelerate  # noqa: F401
        import datasets  # noqa: F401
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except JobError as error:
        raise _as_problem(error) from None
    except Exception as error:  # noqa: BLE001  packages raise anything
        shadow = f"PYTHONPATH is {os.environ['PYTHONPATH']}: unset it; else " if os.environ.get("PYTHONPATH") else ""
        raise Problem(f"{sys.executable} cannot import what trains: {type(error).__name__}: {error}",
                      f"{shadow}make the environment again (make setup), or the image") from None  # fmt: skip
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES)
    return f"Python {platform.python_version()}, {versions}"


def _name(rank: Rank) -> None:
    """Set the variables with the rank for torch and accelerate, if Slurm started this process."""
    if "SUBMITIT_FOLDER" in os.environ:
        from submitit import JobEnvironment

        from launch.slurm import rendezvous

        rank.slurm = JobEnvironment()
        rendezvous.name_rank(rank.slurm)


def gpu(rank: Rank) -> str:
    """Check that torch can use the GPU of this rank; returns its name, memory and driver."""
    import torch

    from job import devices
    from job.runtime import gpus

    if not rank.gpus and gpus.cpu_is_requested(os.environ):
        return "none requested"
    seen = devices.look()
    if problem := devices.problem(seen):
        raise _as_problem(problem)
    if not rank.gpus:
        return f"{seen.visible or 'none'} on this machine"
    if seen.visible < rank.gpus:
        raise Problem(f"{rank.gpus} GPUs were asked for and torch sees {seen.visible}",
                      f"look at nvidia-smi on {rank.host}; leave the node out with --sbatch=--exclude={rank.host}; a "
                      "container must be started with its GPUs")  # fmt: skip
    try:
        torch.ones(1024, device=f"cuda:{rank.local}").sum().item()
    except (AssertionError, RuntimeError) as error:
        raise Problem(f"GPU {rank.local} does not compute: {error}",
                      f"ask an administrator to look at {rank.host}") from None  # fmt: skip
    known = torch.cuda.get_device_properties(rank.local)
    return f"{known.name}, {known.total_memory / 1e9:.0f} GB, driver {gpus.driver_version()}"


def disk(rank: Rank) -> str:
    """Check that the folders that a job writes are writable and have free space."""
    home, temporary = caches.home(os.environ), Path(tempfile.gettempdir())
    details = []
    for name, folder in {"runs": rank.folder, "HF_HOME": home, "TMPDIR": temporary}.items():
        remedy = f"set {name} to another folder" if name != "runs" else "work in another folder"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as file:
                file.write(bytes(2**20))
                file.flush()
                os.fsync(file.fileno())
            free = shutil.disk_usage(folder).free
        except OSError as error:
            raise Problem(f"{name} ({folder}) cannot be written: {error.strerror}", remedy) from None
        if free < DISK_BYTES:
            raise Problem(f"{name} ({folder}) has {free / 1e6:,.0f} MB free", f"make room there, or {remedy}")
        details.append(f"{name} {free / 1e9:,.0f} GB free")
    return ", ".join(details)


def shm(rank: Rank) -> str:
    """Check the size of /dev/shm, which NCCL uses between the processes of a node."""
    folder = Path("/dev/shm")
    free = shutil.disk_usage(folder).free if folder.is_dir() else 0
    if free < SHM_BYTES:
        raise Problem(f"{folder} has {free / 1e6:,.0f} MB free, NCCL needs {SHM_BYTES / 1e6:.0f} MB",
                      "start the container with more shared memory (--shm-size 8g), or remove what ended jobs left "
                      "there")  # fmt: skip
    return f"{free / 1e9:,.1f} GB free"


def names(rank: Rank) -> str:
    """Check that the first node's name resolves on this node."""
    if rank.slurm is None or rank.slurm.num_nodes == 1:
        return "a single machine needs no name"
    from launch.slurm import rendezvous

    try:
        return f"the first node is {rendezvous.first_node(rank.slurm)}"
    except JobError as error:
        raise _as_problem(error) from None


def join(rank: Rank) -> str:
    """Create the process group of all ranks, like the job does."""
    import torch
    from torch.distributed import FileStore  # type: ignore[attr-defined]

    backend = "nccl" if rank.gpus else "gloo"
    limit = datetime.timedelta(seconds=JOIN_SECONDS)
    if rank.gpus:
        torch.cuda.set_device(rank.local)
    try:
        if rank.slurm is None:
            store = FileStore(str(rank.folder / "store"), rank.world)
            torch.distributed.init_process_group(backend, store=store, rank=rank.number, world_size=rank.world,
                                                 timeout=limit)  # fmt: skip
        else:
            from launch.slurm import rendezvous

            restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
            rank.store = rendezvous.join(rank.slurm, restarts, JOIN_SECONDS)
            torch.distributed.init_process_group(backend, timeout=limit)
        torch.distributed.barrier()
    except JobError as error:
        raise _as_problem(error) from None
    except (RuntimeError, ValueError) as error:
        raise Problem(f"the processes do not find each other: {str(error).splitlines()[0][:200]}",
                      "nodes must reach each other on any port: have the firewall opened, or name the network between "
                      "them with GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME") from None  # fmt: skip
    return f"{rank.world} processes, {backend}"


def all_reduce(rank: Rank) -> str:
    """Check a sum of known numbers over all ranks, and measure its speed: the best round of the slowest rank."""
    import torch

    device = f"cuda:{rank.local}" if rank.gpus else "cpu"
    pattern = torch.arange(REDUCE_SIZE, device=device).remainder_(1009).float()
    times = []
    for _ in range(ROUNDS):
        numbers = pattern * (rank.number + 1)
        began = time.monotonic()
        try:
            torch.distributed.all_reduce(numbers)
            if rank.gpus:
                torch.cuda.synchronize()
        except RuntimeError as error:
            raise Problem(f"it fails: {str(error).splitlines()[0][:200]}", "NCCL_DEBUG=INFO says why") from None
        times.append(time.monotonic() - began)
        if not torch.equal(numbers, pattern * (rank.world * (rank.world + 1) // 2)):
            raise Problem(f"the sum of 1 to {rank.world} is wrong on rank {rank.number}",
                          "do not train here: compare with other nodes, and try NCCL_P2P_DISABLE=1")  # fmt: skip
    slowest = torch.tensor(min(times), device=device)
    torch.distributed.all_reduce(slowest, torch.distributed.ReduceOp.MAX)
    seconds, size = slowest.item(), 4 * REDUCE_SIZE
    return f"correct; {size / 1e6:.0f} MB in {1000 * seconds:.0f} ms, {size / seconds / 1e9:.2f} GB/s"


def clock(rank: Rank) -> str:
    """Compare this node's clock with rank 0's, right after a barrier."""
    import torch

    torch.distributed.barrier()
    times: list[float] = [0.0] * rank.world
    torch.distributed.all_gather_object(times, time.time())
    ahead = times[rank.number] - times[0]
    if abs(ahead) > CLOCK_SECONDS:
        raise Problem(f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} rank 0", CLOCK_REMEDY)
    return f"within {max(max(times) - min(times), 0.1):.1f} s of each other"


def leave() -> None:
    import torch

    torch.distributed.destroy_process_group()


def _as_problem(error: JobError | str) -> Problem:
    """Split an error message of ours, which ends in `: remedy`."""
    detail, _, remedy = str(error).rpartition(": ")
    return Problem(detail, remedy)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
