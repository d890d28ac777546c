"""Pages of mapped files are let go of, and nothing that was in them is lost."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from datasets import Dataset

from job.data import resident
from job.data.dataset import Split

ROWS = 100_000
linux = pytest.mark.skipif(sys.platform != "linux", reason="pages are let go on Linux alone")


@pytest.fixture
def on_disk(tmp_path: Path) -> Dataset:
    """A memory-mapped table of 8 MB of tokens."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(10, 31, ROWS)
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    ids = pa.ListArray.from_arrays(starts, pa.array(rng.integers(0, 30_000, starts[-1]), pa.int32()))
    Dataset(pa.table({"input_ids": ids})).save_to_disk(tmp_path / "saved")
    return Dataset.load_from_disk(tmp_path / "saved").with_format("numpy")


def pages(folder: Path) -> int:
    """Bytes of the files below `folder` that are resident in this process."""
    total, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()
        if "-" in head[0] and not head[0].endswith(":"):
            ours = str(folder) in line
        elif head[0] == "Rss:" and ours:
            total += 1024 * int(head[1])
    return total


def split_of(table: Dataset) -> Split:
    lengths = pa.compute.list_value_length(table.data.column("input_ids")).to_numpy().astype(np.int32)
    return Split(table, lengths, None, np.arange(len(lengths), dtype=np.int32))


@linux
def test_rows_read_in_random_order_leave_no_pages_behind(tmp_path: Path, on_disk: Dataset) -> None:
    split, rows = split_of(on_disk), np.random.default_rng(1).permutation(ROWS)[:1000]
    expected = on_disk[rows.tolist()]["input_ids"]
    assert pages(tmp_path) > 4e6, "without letting go"
    found = split.rows(rows)["input_ids"]
    assert pages(tmp_path) < 1e5
    assert len(found) == len(expected) and all(map(np.array_equal, found, expected))


@linux
def test_what_was_let_go_is_read_again(on_disk: Dataset) -> None:
    column = on_disk.data.column("input_ids")
    before = column.to_pylist()
    assert resident.mapped(column)
    resident.let_go(resident.mapped(column))
    assert column.to_pylist() == before


def test_memory_that_is_no_file_is_never_let_go() -> None:
    assert resident.mapped(pa.chunked_array([pa.array(["a", "b"]), pa.array(["c"])])) == ()


def test_rows_in_memory_come_as_asked_for_however_many() -> None:
    lists = [[i] * (1 + i % 3) for i in range(300)]
    split = split_of(Dataset.from_dict({"input_ids": lists}).with_format("numpy"))
    for rows in (np.arange(300)[::-1], np.array([5]), np.zeros(200, dtype=np.int64)):
        assert [row.tolist() for row in split.rows(rows)["input_ids"]] == [lists[i] for i in rows]


@linux
def test_freed_memory_is_given_back() -> None:
    """Below what stays: the allocator alone gives back the top of its heap only."""
    pieces = [bytes(2000) for _ in range(50_000)]
    pieces[:-100] = []
    before = own()
    resident.trim()
    assert before - own() > 80e6, "of a hundred million bytes"


def own() -> int:
    """Bytes of this process that are no file's."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])
