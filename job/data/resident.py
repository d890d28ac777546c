"""What counts as memory of this process without being needed by it, and giving it back.

A memory-mapped page that was read once stays, and the kernel brings its neighbours along: rows read in random order
make a whole file resident within a few steps. Let go, the pages are still in the kernel's cache, where the next read
finds them. Allocators, too, keep what was freed. Elsewhere than on Linux nothing is given back.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from typing import Any

import pyarrow as pa

Ranges = tuple[tuple[int, int], ...]
"""(address, bytes) of mapped files."""
DONTNEED = 4


def mapped(column: pa.ChunkedArray) -> Ranges:
    """Where the files lie that `column` is mapped from, for as long as it lives; empty for what is in memory.

    Only Arrow files, mapped to be read: of these, unlike of memory or of a library, all can be read again.
    """
    if sys.platform != "linux":
        return ()
    addresses = sorted({b.address for chunk in column.chunks for b in chunk.buffers() if b is not None})
    found = []
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        for line in file:
            span, access, *_ = line.split()
            start, end = (int(address, 16) for address in span.split("-"))
            is_file = "w" not in access and line.rstrip().endswith(".arrow")
            if is_file and any(start <= address < end for address in addresses):
                found.append((start, end - start))
    return tuple(found)


def let_go(ranges: Ranges) -> None:
    """Drop the pages from this process; what they hold stays, and whoever reads them gets them again."""
    for start, size in ranges:
        _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(size), DONTNEED)


def trim() -> None:
    """Give back what was freed."""
    pa.default_memory_pool().release_unused()
    if hasattr(_libc(), "malloc_trim"):  # glibc alone has it
        _libc().malloc_trim(0)


@cache
def _libc() -> Any:
    return ctypes.CDLL(None)
