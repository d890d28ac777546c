"""One process's batches of a split: planned and collated on the host, one step ahead of the device.

Batches are a function of the examples and a token limit, without randomness. So a thread can prepare them ahead of
time, and prepare them again for a lower limit. One thread and one step ahead are enough: planning and collating take a
hundredth of the time of a step. The worker processes of a DataLoader would copy every tensor; they are meant for slow
transforms of each row, and the rows are already tokenized.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
from accelerate import Accelerator

from job.batching import planner
from job.batching.collate import Tensors, pinned
from job.batching.planner import MicroBatch
from job.config import Config
from job.data.dataset import Data, Split
from job.errors import Refused

if TYPE_CHECKING:
    from job.batching.forms import Form

T = TypeVar("T")
_END = object()

Collated = tuple[MicroBatch, Tensors]
"""A micro-batch and its tensors, on the host; pinned if the device is a GPU."""


@dataclass(frozen=True)
class StepBatch:
    """A global batch and this process's share of it.

    Attributes:
        examples: int32[B], the examples of the global batch, over all processes.
        limit: tokens per forward pass with which it was split.
        mine: the micro-batches of this process.
        tokens: (real, computed) tokens of the whole global batch.
    """

    examples: np.ndarray
    limit: int
    mine: tuple[Collated, ...]
    tokens: tuple[int, int]


def check_token_limits(config: Config, data: Data) -> None:
    """Refused if an example has more tokens than the user allows in a forward pass: known before the model is loaded,
    and not only at the first evaluation."""
    training, evaluation = config.training.max_tokens_per_device, config.evaluation.eval_max_tokens_per_device
    for what, split, name, limit in (
        ("training", data.train, "max_tokens_per_device", training),
        ("evaluation", data.evaluation, "eval_max_tokens_per_device", evaluation),
        ("test", data.test, "eval_max_tokens_per_device", evaluation),
    ):
        longest = 0 if split is None else int(split.padded_lengths.max())
        if limit is not None and longest > limit:
            raise Refused(f"the longest example of the {what} set has {longest} tokens, more than --{name} {limit}: "
                          "raise it, or lower --max_seq_length")  # fmt: skip


class BatchLoader:
    """The batches of one split."""

    def __init__(self, split: Split, form: Form, accelerator: Accelerator, overhead: int = 0) -> None:
        """`overhead`: the fixed cost of a forward and backward pass, in tokens that could be computed meanwhile."""
        self.split, self.accelerator = split, accelerator
        self.longest = int(split.padded_lengths.max())
        self._form, self._collate, self._overhead = form, form.collate(split), overhead

    def token_limit(self, asked: int | None, default: int) -> int:
        """Tokens per forward pass: as requested, else the default, or the longest example if that is more."""
        return asked or max(default, self.longest)

    @contextmanager
    def steps(self, batches: Iterable[np.ndarray], limit: Callable[[], int]) -> Iterator[Iterator[StepBatch]]:
        """The global `batches`, each prepared while the previous one is computed, under the `limit` of that time."""
        with one_ahead(self.step(examples, limit()) for examples in batches) as ready:
            yield ready

    def step(self, examples: np.ndarray, limit: int) -> StepBatch:
        """One global batch under a token limit."""
        padded, shape, world = self.split.padded_lengths, self._form.shape, self.accelerator.num_processes
        shares = planner.plan_step(examples, padded, limit, world, self._overhead, shape)
        tokens = planner.tokens_of(list(chain(*shares)), self.split.lengths, padded, shape)
        return StepBatch(examples, limit, self.collated(shares[self.accelerator.process_index]), tokens)

    def plan_evaluation(self, limit: int) -> list[list[np.ndarray]]:
        """The micro-batches of every process, as indices of examples; each example is in exactly one of them."""
        padded, shape, world = self.split.padded_lengths, self._form.shape, self.accelerator.num_processes
        return planner.plan_evaluation(padded, limit, world, shape)

    @contextmanager
    def tensors(self, micro_batches: Iterable[np.ndarray]) -> Iterator[Iterator[Tensors]]:
        """The tensors of each micro-batch, prepared while the previous one is computed."""
        device = self.accelerator.device
        with one_ahead(pinned(self._collate(indices), device) for indices in micro_batches) as ready:
            yield ready

    def collated(self, plan: Sequence[MicroBatch]) -> tuple[Collated, ...]:
        """The tensors of each micro-batch."""
        device = self.accelerator.device
        return tuple((micro, pinned(self._collate(micro.indices), device)) for micro in plan)


@contextmanager
def one_ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """The `items` in order, computed one ahead by a thread. An exception is raised in place of the item that raised it.

    Only the thread runs `items`; it has ended when the context is left.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:

        def each() -> Iterator[T]:
            coming = thread.submit(next, items, _END)
            while (item := coming.result()) is not _END:
                coming = thread.submit(next, items, _END)
                yield cast(T, item)

        yield each()
