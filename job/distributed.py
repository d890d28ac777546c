"""The processes of a job: starting and stopping them, and the collectives that they use.

An error that only one process sees must end all of them; otherwise the others wait in a collective until it times out.
With `raise_on_all` the processes exchange the outcome of a phase, then all raise or all continue.

Objects are exchanged over the CPU, in a process group of their own with a timeout of hours: while one process tokenizes
or writes a model, the others wait for it. A GPU's process group would end the job after ten minutes.
"""

from __future__ import annotations

import datetime
import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from job import devices
from job.config import Config
from job.errors import JobError, Refused
from job.run.trackers import Trackers
from job.runtime.console import log

BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""torch's names of the CPU instructions (x86, ARM) that compute in bf16."""
PRECISIONS = ("no", "bf16", "fp16")
T = TypeVar("T")
LOST_SIGNS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/transport", "NCCL")

STEP_LIMIT = datetime.timedelta(minutes=10)
"""Timeout of collectives between two steps, which all processes reach at about the same time."""
PHASE_LIMIT = datetime.timedelta(hours=48)
"""Timeout of collectives while one process works alone; the heartbeat in status.json shows that it is alive."""
DDP = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
"""No collective in a forward pass: a process that runs out of memory there can repeat it. Gradients are computed in the
buckets that are exchanged, not copied into them."""


def start(config: Config) -> Accelerator:
    """Join the other processes and return this process's Accelerator.

    Raises:
        Refused: each process would train alone, there are fewer GPUs than processes, or the precision is not
            supported, or not the same on all.
    """
    devices.check()
    if not torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # otherwise each process assumes that it is the only one
    precision = config.training.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision.lower() not in PRECISIONS:
        raise Refused(f"the launcher's mixed precision {precision} is not supported: set --mixed_precision to bf16, "
                      "fp16 or no")  # fmt: skip
    try:
        accelerator = Accelerator(mixed_precision=config.training.mixed_precision, kwargs_handlers=[DDP])
    except (ValueError, ImportError) as error:
        raise Refused(" ".join(str(error).split())) from error
    if accelerator.num_processes > 1:  # now, because creating a group is a collective with a short timeout
        step_group()
        phase_group()
    with raise_on_all(accelerator):
        _set_precision(accelerator.mixed_precision, accelerator.device, accelerator.is_main_process)
    if len(set(gather_objects(accelerator, accelerator.mixed_precision))) > 1:
        raise Refused("the processes compute in different precisions: give all machines the same --mixed_precision")
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != world:
        raise Refused(f"WORLD_SIZE is {world} but Accelerate sees {accelerator.num_processes} process(es): start the "
                      "job with accelerate launch or torchrun")  # fmt: skip
    return accelerator


def _set_precision(mixed: str, device: torch.device, main: bool) -> None:
    """Use TF32 for fp32 on a GPU. Refused if the device does not support the precision; warn if it emulates it."""
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)  # it plans each new shape for up to a second
        torch.set_float32_matmul_precision("high")  # not on a CPU, where it would change results
        if mixed == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise Refused("--mixed_precision bf16: this GPU does not support bf16; use fp16")
    if device.type == "cpu" and mixed == "fp16":
        raise Refused("--mixed_precision fp16 needs a GPU; on a CPU use bf16 or no")
    if device.type == "cpu" and mixed == "bf16" and main and not any(map(torch.cpu.get_capabilities().get, BF16)):
        log.warning("--mixed_precision bf16: this CPU has no bf16 instructions (avx512_bf16, amx_bf16) and emulates "
                    "them: slower than --mixed_precision no")  # fmt: skip


def device_class(accelerator: Accelerator) -> str:
    """The class of device that defaults depend on: "cpu" or "gpu"."""
    return "cpu" if accelerator.device.type == "cpu" else "gpu"


def stop(accelerator: Accelerator) -> None:
    """Leave the process group. The DDP model must have been freed: gloo aborts if its hooks outlive the group."""
    gc.collect()
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    step_group.cache_clear()
    phase_group.cache_clear()
    Trackers(accelerator).finish()
    accelerator.end_training()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def raise_on_all(accelerator: Accelerator) -> Iterator[None]:
    """Run a phase on every process; if any process fails with a JobError, all raise that of the lowest rank.

    The phase must contain no collective, which an error could skip.
    """
    error: JobError | None = None
    try:
        yield
    except JobError as raised:
        error = raised
    first = first_error(accelerator, error)
    if first is not None:
        raise first


def first_error(accelerator: Accelerator, error: T | None) -> T | None:
    """The error of the lowest rank that has one; the same on every process."""
    return next((one for one in gather_objects(accelerator, error) if one is not None), None)


def gather_objects(accelerator: Accelerator, value: T) -> list[T]:
    """The values of all processes in order of rank, on every process."""
    values = [value] * accelerator.num_processes
    if accelerator.num_processes > 1:
        torch.distributed.all_gather_object(values, value, group=phase_group())
    return values


def all_reduce_any(accelerator: Accelerator, flag: bool) -> bool:
    """Whether `flag` is true on any process. Exchanged over the CPU, so that no process waits for a GPU."""
    if accelerator.num_processes == 1:
        return flag
    flags = torch.tensor(int(flag))
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=step_group())
    return bool(flags)


@cache
def step_group() -> torch.distributed.ProcessGroup:
    """All processes, over the CPU: for collectives between two steps, which should not wait for a GPU."""
    return torch.distributed.new_group(backend="gloo", timeout=STEP_LIMIT)


@cache
def phase_group() -> torch.distributed.ProcessGroup:
    """All processes, over the CPU: for collectives that follow hours of work on a single process."""
    return torch.distributed.new_group(backend="gloo", timeout=PHASE_LIMIT)


def main_process_first(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """The result of `work` on every process: first on one process per machine, which fills the caches, then on the
    rest.

    Accelerate's main_process_first is a context manager; an error inside it on one process leaves the others waiting.
    """
    results = []
    for first in (True, False):
        with raise_on_all(accelerator):
            if accelerator.is_local_main_process == first:
                results.append(work())
    return results[0]


def broadcast_from_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """What `work` returns on the main process, on every process; a JobError there is raised on all."""
    result: list[T | None] = [None]
    with raise_on_all(accelerator):
        if accelerator.is_main_process:
            result = [work()]
    if accelerator.num_processes > 1:
        torch.distributed.broadcast_object_list(result, src=0, group=phase_group())
    return cast(T, result[0])


def broadcast_tensors(accelerator: Accelerator, tensors: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """The tensors of the main process, on every process; on the device if there are several processes."""
    if accelerator.num_processes == 1:
        return dict(tensors or {})
    shapes = broadcast_from_main(accelerator, lambda: [(name, t.shape, t.dtype) for name, t in (tensors or {}).items()])
    received = {}
    for name, shape, dtype in shapes:
        mine = torch.empty(shape, dtype=dtype, device=accelerator.device)
        received[name] = mine if tensors is None else tensors[name].to(accelerator.device)
        torch.distributed.broadcast(received[name], src=0)
    return received


def lost_another(error: BaseException) -> bool:
    """Whether `error` is the kind that a process gets when another process of the job has died."""
    if isinstance(error, torch.distributed.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in LOST_SIGNS)
