"""Out of GPU memory: the step is done again with half the tokens a forward pass, on the same examples.

Which rows a step holds does not depend on the token limit, so a smaller one gives the same training, only slower. The
usual remedy, another batch size, makes it another training. Processes must halve together, and before gradients are
exchanged: one that stayed behind in the exchange would wait for ever. So they ask each other before the last forward
pass of a step and before its backward pass. The last micro-batch is the cheapest of a step; running out of memory in
its very backward pass ends the job.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import torch
from accelerate import Accelerator

from job import distributed
from job.errors import OutOfMemory

T = TypeVar("T")
REMEDY = "lower --max_seq_length, or try --mixed_precision bf16 or --gradient_checkpointing"


class Exhausted(Exception):
    """A process, this one or another, ran out of memory before gradients were exchanged."""


def agreed(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """The result of `work`, which holds no collective.

    Raises:
        Exhausted: on every process, if one ran out of memory.
    """
    done: list[T] = []
    with contextlib.suppress(torch.OutOfMemoryError):  # its traceback, gone below, holds what fills the memory
        done.append(work())
    if distributed.all_reduce_any(accelerator, not done):
        raise Exhausted
    return done[0]


def fitting(
    attempt: Callable[[int], T], limit: int, longest: int, forget: Callable[[], None], halved: Callable[[int], None]
) -> tuple[T, int]:
    """`attempt(limit)`, begun again at half the limit for as long as a process runs out of memory.

    Args:
        attempt: a step's forward and backward passes under a limit of tokens.
        limit: to try first.
        longest: tokens of the longest example: no limit is below.
        forget: drops what a failed attempt left behind, gradients above all.
        halved: told each new limit.

    Returns:
        The result, and the limit it was reached with. The random state is what one attempt at that limit leaves.

    Raises:
        OutOfMemory: on every process, where the longest example alone does not fit.
    """
    random = _random_state()
    while True:
        try:
            return attempt(limit), limit
        except Exhausted:
            if limit <= longest:
                raise OutOfMemory(f"one example of {longest} tokens does not fit into memory: {REMEDY}") from None
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
