"""The next is made while the caller works on this one, and nothing of the thread is left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from job.batching.prefetch import one_ahead

WAIT = 30
"""Seconds after which a test that would hang fails."""


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


def test_items_come_in_order_and_to_the_last() -> None:
    with one_ahead(iter(range(100))) as items:
        assert list(items) == list(range(100))


def test_the_next_is_made_while_this_one_is_worked_on_and_no_more_than_the_next() -> None:
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


def test_it_is_made_by_another_thread() -> None:
    with one_ahead(threading.current_thread() for _ in range(3)) as items:
        assert threading.main_thread() not in set(items)


def test_an_error_comes_in_place_of_the_item_that_it_was_raised_for() -> None:
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
