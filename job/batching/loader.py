"""A global batch -> what this process computes of it, ready on the host: the part of a step that needs no device.

All of it is a function of the examples and the token limit. Nothing is drawn, so a thread may do it ahead of time
(job/batching/prefetch.py), and do it again for a lower limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from accelerate import Accelerator

from job.batching import planner
from job.batching.collate import Collate, Tensors, pinned
from job.batching.planner import MicroBatch, Shape
from job.data.dataset import Split

Ready = tuple[MicroBatch, Tensors]
"""A micro-batch and its tensors, on the host; pinned where the device is a GPU."""


@dataclass(frozen=True)
class Prepared:
    """One step, as this process takes part in it.

    Attributes:
        examples: int32[B], those of the global batch, on all processes.
        limit: tokens of a forward pass, by which it was cut.
        mine: the micro-batches of this process.
        tokens: (real, computed) of the whole global batch.
    """

    examples: np.ndarray
    limit: int
    mine: tuple[Ready, ...]
    tokens: tuple[int, int]


class Preparation:
    """What the steps of a run have in common before they reach the device."""

    def __init__(self, split: Split, collate: Collate, overhead: int, shape: Shape, accelerator: Accelerator) -> None:
        self._split, self._collate, self._shape, self._overhead = split, collate, shape, overhead
        self._computed, self._accelerator = split.computed, accelerator
        self.longest = int(self._computed.max())

    def __call__(self, examples: np.ndarray, limit: int) -> Prepared:
        """A global batch under a limit of tokens."""
        accelerator = self._accelerator
        hands = planner.plan_step(
            examples, self._computed, limit, accelerator.num_processes, self._overhead, self._shape
        )
        tokens = planner.tokens_of(list(chain(*hands)), self._split.lengths, self._computed, self._shape)
        mine = hands[accelerator.process_index]
        return Prepared(examples, limit, ready(mine, self._collate, accelerator.device), tokens)


def ready(plan: Sequence[MicroBatch], collate: Collate, device: torch.device) -> tuple[Ready, ...]:
    """The tensors of each micro-batch."""
    return tuple((micro, pinned(collate(micro.indices), device)) for micro in plan)
