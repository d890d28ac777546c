"""Out of GPU memory: retry a step or an evaluation with half the tokens per forward pass, on the same examples.

The examples of a step do not depend on the token limit, so a lower limit gives the same training, only slower. The
usual remedy, a smaller batch size, changes the training.

A single process may run out of memory anywhere in a step. Several processes must halve together, before they exchange
gradients: a process that failed during the exchange would leave the others waiting. So they agree before the last
forward pass of a step, and before its backward pass, in which DDP exchanges gradients. A process that runs out of
memory there ends the job.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from accelerate import Accelerator

from job import distributed
from job.errors import SMALLER, OutOfMemory, OutOfMemoryInExchange

T = TypeVar("T")
WORDS = (
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
"""Messages of CUDA libraries that fail to allocate because torch's allocator holds all memory."""


class Exhausted(Exception):
    """A process, this one or another, ran out of memory before gradients were exchanged."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or a CUDA library raised this because GPU memory is full."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in WORDS)


def attempted(work: Callable[[], T]) -> list[T]:
    """[the result of `work`], or [] if memory ran out. The traceback, which references the tensors, is dropped."""
    try:
        return [work()]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    return []


def agreed(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """The result of `work`, which contains no collective.

    Raises:
        Exhausted: on every process, if one ran out of memory.
    """
    done = attempted(work)
    raise_if_one_failed(accelerator, not done)
    return done[0]


def raise_if_one_failed(accelerator: Accelerator, failed: bool) -> None:
    """Raise Exhausted on every process if one of them failed."""
    if distributed.all_reduce_any(accelerator, failed):
        raise Exhausted


@contextmanager
def exchanging() -> Iterator[None]:
    """For work during which the other processes wait.

    Raises:
        OutOfMemoryInExchange: on this process alone.
    """
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise OutOfMemoryInExchange(
                "out of memory while gradients were exchanged: lower --max_tokens_per_device, then run"
            ) from None
        raise


def fitting(
    attempt: Callable[[int], T], limit: int, longest: int, forget: Callable[[], None], halved: Callable[[int], None]
) -> tuple[T, int]:
    """`attempt(limit)`, retried with half the limit as long as a process runs out of memory.

    Args:
        attempt: forward passes, and backward passes in training, under a token limit.
        limit: the limit to try first.
        longest: tokens of the longest example, the lowest limit.
        forget: discards the remains of a failed attempt, above all gradients.
        halved: called with each new limit.

    Returns:
        The result and the limit that worked. The random state is as after a single attempt at that limit.

    Raises:
        OutOfMemory: on every process, if the longest example alone does not fit.
    """
    random = _random_state()
    while True:
        try:
            return attempt(limit), limit
        except Exhausted:
            if limit <= longest:
                raise OutOfMemory(f"one example of {longest} tokens does not fit into memory: {SMALLER}") from None
        limit = max(limit // 2, longest)
        forget()
        _restore(random)
        halved(limit)


def _random_state() -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _restore(state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    cpu, gpu = state
    torch.set_rng_state(cpu)
    if gpu is not None:
        torch.cuda.set_rng_state(gpu)
        torch.cuda.empty_cache()
