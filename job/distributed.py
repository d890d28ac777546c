"""The processes of a job: how they start and stop, and what they tell each other.

An error that only one process sees must end all of them, or the others wait in a collective until a time-out. In
`raise_on_all` the processes tell each other how a chapter went, then all raise or all go on.

Objects are exchanged over the CPU, in a group of their own that waits for hours: while one process tokenises or writes
a model, the others wait for it. A GPU's group would end the job after ten minutes.
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
from job.runtime.console import log

BF16 = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")
"""What torch calls the instructions of CPUs (x86, ARM) that compute in bf16."""
T = TypeVar("T")
LOST_SIGNS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo/transport", "NCCL")

STEP_LIMIT = datetime.timedelta(minutes=10)
"""How long processes wait for each other between two steps, which they reach at about the same time."""
CHAPTER_LIMIT = datetime.timedelta(hours=48)
"""How long they wait while one of them works alone; the heartbeat in status.json shows that it lives."""
DDP = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
"""No collective in a forward pass: a process that runs out of memory there may do it again. Gradients are not copied
into the buckets that are exchanged, but computed there."""


def start(config: Config) -> Accelerator:
    """The Accelerator of this process, joined with the others.

    Raises:
        Refused: the processes were started so that each would train alone, there are GPUs but not one for each, or
            the precision is not supported.
    """
    devices.check()
    if not torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        os.environ.setdefault("ACCELERATE_USE_CPU", "true")  # without it, each process would believe it is alone
    try:
        accelerator = Accelerator(mixed_precision=config.training.mixed_precision, kwargs_handlers=[DDP])
    except (ValueError, ImportError) as error:
        raise Refused(" ".join(str(error).split())) from error
    if accelerator.num_processes > 1:  # now, because making a group is a collective with a short limit of its own
        step_group()
        chapter_group()
    with raise_on_all(accelerator):
        _set_precision(accelerator.mixed_precision, accelerator.device, accelerator.is_main_process)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if accelerator.num_processes != world:
        raise Refused(f"{world} processes were started but this one sees {accelerator.num_processes}: start them with "
                      "accelerate launch or torchrun")  # fmt: skip
    return accelerator


def _set_precision(mixed: str, device: torch.device, main: bool) -> None:
    """TF32 for what a GPU computes in fp32. Refused where the device lacks the precision, said where it imitates it."""
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)  # it would spend up to a second planning for each new shape
        torch.set_float32_matmul_precision("high")  # not on a CPU, whose results it would change
        if mixed == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise Refused("--mixed_precision bf16: this GPU computes no bf16, take fp16")
    if device.type == "cpu" and mixed == "fp16":
        raise Refused("--mixed_precision fp16 needs a GPU: on a CPU take bf16 or no")
    if device.type == "cpu" and mixed == "bf16" and main and not any(map(torch.cpu.get_capabilities().get, BF16)):
        log.warning("--mixed_precision bf16: this CPU has neither avx512_bf16 nor amx_bf16 and imitates them: "
                    "slower than --mixed_precision no")  # fmt: skip


def device_class(accelerator: Accelerator) -> str:
    """What defaults depend on: "cpu" or "gpu"."""
    return "cpu" if accelerator.device.type == "cpu" else "gpu"


def stop(accelerator: Accelerator) -> None:
    """Leave the process group. The DDP model must be gone: gloo aborts when its hooks outlive the group."""
    gc.collect()
    accelerator.free_memory()
    accelerator.wait_for_everyone()
    step_group.cache_clear()
    chapter_group.cache_clear()
    accelerator.end_training()
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def raise_on_all(accelerator: Accelerator) -> Iterator[None]:
    """Run a chapter on every process; if it failed with a JobError on any, all raise that of the lowest rank.

    The chapter itself must hold no collective that an error could skip.
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
    """The error, or what else is wrong, of the lowest rank that has one; the same on every process."""
    return next((found for found in gather_objects(accelerator, error) if found is not None), None)


def gather_objects(accelerator: Accelerator, value: T) -> list[T]:
    """The values of all processes by rank, on every process."""
    values = [value] * accelerator.num_processes
    if accelerator.num_processes > 1:
        torch.distributed.all_gather_object(values, value, group=chapter_group())
    return values


def all_reduce_any(accelerator: Accelerator, flag: bool) -> bool:
    """Whether `flag` is true on any process. Over the CPU, so that nobody waits for a GPU."""
    if accelerator.num_processes == 1:
        return flag
    flags = torch.tensor(int(flag))
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX, group=step_group())
    return bool(flags)


@cache
def step_group() -> torch.distributed.ProcessGroup:
    """All processes, over the CPU: for what is agreed between two steps, where a GPU should not be waited for."""
    return torch.distributed.new_group(backend="gloo", timeout=STEP_LIMIT)


@cache
def chapter_group() -> torch.distributed.ProcessGroup:
    """All processes, over the CPU: for what may come after one of them has worked alone for long."""
    return torch.distributed.new_group(backend="gloo", timeout=CHAPTER_LIMIT)


def main_process_first(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """The result of `work` on every process: first on one of each machine, which fills the caches, then on the rest.

    Accelerate's main_process_first is a context, in which an error on one process leaves the others waiting.
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
        torch.distributed.broadcast_object_list(result, src=0, group=chapter_group())
    return cast(T, result[0])


def broadcast_tensors(accelerator: Accelerator, tensors: Mapping[str, torch.Tensor] | None) -> dict[str, torch.Tensor]:
    """The tensors of the main process, on every process; on the device where there are several processes."""
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
    """Whether `error` is what a process sees when another of the job has died."""
    if isinstance(error, torch.distributed.DistError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(sign in text for sign in LOST_SIGNS)
