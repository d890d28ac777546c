"""What a step computes is known without a device, and reproducible."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from job.batching.collate import Tensors
from job.batching.loader import BatchLoader, check_token_limits, one_ahead
from job.batching.planner import EQUAL, PADDED, Shape
from job.config import from_dict
from job.config.tasks import SINGLE_LABEL
from job.errors import Refused
from tests.support.pairs import LENGTHS, pairs

WAIT = 30
"""Seconds after which a test that would hang fails."""


def first_tokens(indices: np.ndarray) -> Tensors:
    return {"input_ids": torch.from_numpy(indices)[:, None]}, torch.from_numpy(indices)


def prepared(rank: int, limit: int, shape: Shape, world: int = 2) -> Any:
    here = SimpleNamespace(num_processes=world, process_index=rank, device=torch.device("cpu"))
    form = SimpleNamespace(shape=shape, collate=lambda split: first_tokens)
    return BatchLoader(pairs(SINGLE_LABEL), form, here, 16).step(np.arange(len(LENGTHS)), limit)  # type: ignore[arg-type]


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


def test_batches_are_prepared_under_the_limit_of_their_time() -> None:
    """After the one that was prepared while the limit was lowered."""
    here: Any = SimpleNamespace(num_processes=1, process_index=0, device=torch.device("cpu"))
    form: Any = SimpleNamespace(shape=PADDED, collate=lambda split: first_tokens)
    limits = [1000]
    with BatchLoader(pairs(SINGLE_LABEL), form, here).steps([np.arange(3)] * 3, lambda: limits[-1]) as ready:
        first = next(ready)
        limits.append(64)
        assert [first.limit, *(batch.limit for batch in ready)][::2] == [1000, 64]


def test_loading_uses_no_random_numbers() -> None:
    before = torch.get_rng_state(), np.random.get_state(legacy=False)["state"]["pos"], random.getstate()
    prepared(0, 64, Shape("packed"))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state(legacy=False)["state"]["pos"], random.getstate()) == before[1:]


@pytest.mark.parametrize(
    ("split", "flag"),
    [
        ("train", "max_tokens_per_device"),
        ("evaluation", "eval_max_tokens_per_device"),
        ("test", "eval_max_tokens_per_device"),
    ],
)
def test_an_example_longer_than_a_limit_is_rejected_by_the_flag_of_its_split(split: str, flag: str) -> None:
    data: Any = SimpleNamespace(**{"train": None, "evaluation": None, "test": None, split: pairs(SINGLE_LABEL)})
    check_token_limits(from_dict({flag: max(LENGTHS)}), data)
    name = {"train": "training"}.get(split, split)
    with pytest.raises(Refused) as caught:
        check_token_limits(from_dict({flag: max(LENGTHS) - 1}), data)
    assert str(caught.value) == (
        f"the longest example of the {name} set has 64 tokens, more than --{flag} 63: raise it, or lower "
        "--max_seq_length"
    )


# ---------------------------------------------------------------------------------------------------------------------
# One piece ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_all_items_come_in_order() -> None:
    with one_ahead(iter(range(100))) as items:
        assert list(items) == list(range(100))


def test_only_the_next_item_is_prepared_ahead() -> None:
    made = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for number, event in enumerate(made):
            event.set()
            yield number

    with one_ahead(items()) as ahead:
        assert next(ahead) == 0
        assert made[1].wait(WAIT)
        assert not made[2].wait(0.05)
        assert next(ahead) == 1
        assert made[2].wait(WAIT)


def test_items_are_prepared_by_another_thread() -> None:
    with one_ahead(threading.current_thread() for _ in range(3)) as items:
        assert threading.main_thread() not in set(items)


def test_an_error_is_raised_in_place_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield 0
        yield 1
        raise ValueError("third")

    with one_ahead(items()) as ahead:
        assert [next(ahead), next(ahead)] == [0, 1]
        with pytest.raises(ValueError, match=r"^third$"):
            next(ahead)


@pytest.mark.parametrize("error", [KeyError, KeyboardInterrupt])
def test_the_thread_ends_with_the_context(error: type[BaseException]) -> None:
    def works() -> None:
        with one_ahead(iter(range(9))) as items:
            next(items)
            assert threads()
            raise error

    with pytest.raises(error):
        works()
    assert not threads()
