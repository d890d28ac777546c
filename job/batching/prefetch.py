"""Work done one piece ahead: a thread makes the next while the caller is busy with this one.

One thread and one piece, because what is made (a step's plan and its tensors) takes a hundredth of the time of what is
done with it. Worker processes, as a DataLoader has, would copy every tensor and must be started and ended with care;
what they are for, slow transforms of each row, was done once, when the text was tokenised.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar, cast

T = TypeVar("T")
_END = object()


@contextmanager
def one_ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """The `items`, in their order; what `items` raises is raised in place of the one that it was raised for.

    `items` is only ever run by the thread, which has ended when the context is left.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as thread:

        def each() -> Iterator[T]:
            coming = thread.submit(next, items, _END)
            while (item := coming.result()) is not _END:
                coming = thread.submit(next, items, _END)
                yield cast(T, item)

        yield each()
