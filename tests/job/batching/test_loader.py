"""What a step computes is known before any device is asked, and known again if it is asked for twice."""

from __future__ import annotations

import random
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from job.batching.collate import Tensors
from job.batching.loader import Preparation
from job.batching.planner import EQUAL, PADDED, Shape
from job.config.tasks import SINGLE_LABEL
from tests.support.pairs import LENGTHS, pairs


def first_tokens(indices: np.ndarray) -> Tensors:
    return {"input_ids": torch.from_numpy(indices)[:, None]}, torch.from_numpy(indices)


def prepared(rank: int, limit: int, shape: Shape, world: int = 2) -> Any:
    here = SimpleNamespace(num_processes=world, process_index=rank, device=torch.device("cpu"))
    return Preparation(pairs(SINGLE_LABEL), first_tokens, 16, shape, here)(np.arange(len(LENGTHS)), limit)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [PADDED, EQUAL, Shape("packed"), Shape("packed", 16)], ids=str)
def test_processes_prepare_each_example_once_and_count_the_tokens_of_all(shape: Shape) -> None:
    both = [prepared(rank, 64, shape) for rank in range(2)]
    labels = [tensors[1] for micro, tensors in chain(*(one.mine for one in both)) if micro.weight]
    assert sorted(torch.cat(labels).tolist()) == list(range(len(LENGTHS)))
    assert both[0].tokens == both[1].tokens
    assert both[0].tokens[0] == sum(LENGTHS)
    assert both[0].tokens[1] % shape.round_to == 0


def test_a_lower_limit_gives_more_micro_batches_of_the_same_examples() -> None:
    wide, narrow = (prepared(0, limit, Shape("packed"), world=1) for limit in (1000, 64))
    assert (len(wide.mine), wide.limit, narrow.limit) == (1, 1000, 64)
    assert len(narrow.mine) > 3
    assert np.array_equal(wide.examples, narrow.examples)


def test_nothing_is_drawn() -> None:
    before = torch.get_rng_state(), np.random.get_state()[2], random.getstate()
    prepared(0, 64, Shape("packed"))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[2], random.getstate()) == before[1:]
