"""The rows that forms are compared with: the longest and the shortest of each split, and never one alone."""

from __future__ import annotations

import numpy as np
from datasets import Dataset

from job.batching.form_sample import Sample, sample
from job.data.dataset import Split


def split(*lengths: int, token: int = 7) -> Split:
    table = {"input_ids": [[token + i] * n for i, n in enumerate(lengths)]}
    tokens = Dataset.from_dict(table).with_format("numpy")
    return Split(tokens, np.array(lengths, dtype=np.int32), None, np.arange(len(lengths)))


def sampled(found: Sample) -> list[int]:
    return found.split.lengths[found.together].tolist()


def test_each_splits_longest_and_shortest_row_are_there() -> None:
    found = sampled(sample([split(9, 4, 6), split(3, 20, 5, 8, 11), split(2, 12)]))
    assert {4, 9, 3, 20, 2, 12} <= set(found)
    assert found[1] == max(found), "the longest has a neighbour on both sides"


def test_a_length_of_another_split_is_not_sampled_twice() -> None:
    assert sorted(sampled(sample([split(3, 5, 64, 64, 64), split(3, 64, 64)]))) == [3, 5, 64]


def test_a_row_alone_is_sampled_with_rows_of_other_splits() -> None:
    assert set(sampled(sample([split(9, 4, 6), split(30)]))) >= {30, 9, 4}


def test_a_single_row_is_sampled_twice() -> None:
    assert sampled(sample([split(5)])) == [5, 5]


def test_of_rows_of_one_length_different_ones_are_sampled() -> None:
    ids = np.full((50, 4), 7)
    ids[20], ids[30] = 8, 9
    tokens = Dataset.from_dict({"input_ids": ids}).with_format("numpy")
    found = sample([Split(tokens, np.full(50, 4, dtype=np.int32), None, np.arange(50))])
    assert {tuple(ids) for ids in found.split.rows(found.together)["input_ids"]} == {(7,) * 4, (8,) * 4, (9,) * 4}


def test_each_row_has_a_partner_of_its_length() -> None:
    found = sample([split(9, 4, 9), split(30)])
    rows = found.split.rows(np.arange(len(found.split)))["input_ids"]
    for row, partner in found.pairs:
        assert found.split.lengths[row] == found.split.lengths[partner] == len(rows[row])
        assert (rows[row].tolist() == rows[partner].tolist()) == (len(rows[row]) != 9), "with itself only if alone"


def test_lengths_of_every_remainder_are_sampled() -> None:
    found = sampled(sample([split(*[4] * 30, *range(8, 31)), split(4, 8, 12)]))
    assert {length % 4 for length in found if length < max(found)} == {0, 1, 2, 3}
    assert len(found) <= 7
