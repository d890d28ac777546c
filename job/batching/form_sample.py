"""The rows with which forms of the forward pass are compared (job/batching/form_check.py).

A form can be wrong for rows of different lengths only, as padding or a neighbour's tokens then count. So the sample has
the longest and the shortest row of each split, which are of different lengths if the data has any. The longest of all
can reveal an attention window or a limit of positions. Padding may also change rows of some lengths only: a model that
merges tokens into groups computes full groups as it does without padding. So lengths of every remainder are sampled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from datasets import Dataset

from job.data.dataset import Split

ENOUGH = 3
"""Rows of one length in the sample, if the data has as many: a row between two others."""
SEARCHED = 64
"""Rows of a split of one length among which different ones are searched."""
GROUP = 4
"""Tokens that are merged into one: CANINE merges four, Funnel two, twice."""


@dataclass(frozen=True)
class Sample:
    """The sampled rows of all splits, as a split of its own.

    Attributes:
        split: first the sampled rows, at least two; then, for each, one of the same length; no labels.
        rows: number of sampled rows.
    """

    split: Split
    rows: int

    @property
    def together(self) -> np.ndarray:
        """All sampled rows, in one batch."""
        return np.arange(self.rows)

    @property
    def alone(self) -> list[np.ndarray]:
        """A batch for each sampled row."""
        return [np.array([row]) for row in range(self.rows)]

    @property
    def pairs(self) -> list[np.ndarray]:
        """Each sampled row together with another one of the same length, or with itself if there is none."""
        return [np.array([row, self.rows + row]) for row in range(self.rows)]


def sample(splits: Sequence[Split]) -> Sample:
    """The longest and the shortest row of each split, and some in between; lengths that are there already are left out.

    A single row is taken twice: a micro-batch may hold rows that are equal.
    """
    taken: list[tuple[Split, int]] = []
    lengths: set[int] = set()
    longest = max(int(split.lengths.max()) for split in splits)
    for split in sorted(splits, key=lambda split: -int(split.lengths.max())):
        for row in _candidates(split, {length % GROUP for length in lengths if length < longest}):
            if len(taken) < ENOUGH or int(split.lengths[row]) not in lengths:
                taken.append((split, row))
                lengths.add(int(split.lengths[row]))
    if len(taken) == 1:
        taken = taken * 2
    return Sample(_joined([*taken, *(_partner(split, row) for split, row in taken)]), len(taken))


def _candidates(split: Split, remainders: set[int]) -> Iterator[int]:
    """The longest row between shorter ones; of rows of one length, up to three whose tokens differ.

    `remainders`: of lengths divided by GROUP that the sample has already.
    """
    order = np.argsort(split.lengths, kind="stable")
    if split.lengths[order[0]] < split.lengths[order[-1]]:
        usual = order[[len(order) // 4, -1, 0]]
        rows = np.array([*usual, *_of_other_remainders(split, order, remainders, usual)])
    else:
        some = np.unique(np.linspace(0, len(order) - 1, SEARCHED).astype(np.int64))
        different = np.unique(np.stack(split.rows(some)["input_ids"]), axis=0, return_index=True)[1]
        rows = np.concatenate([some[different], some])[:ENOUGH]
    yield from dict.fromkeys(rows.tolist())


def _of_other_remainders(split: Split, order: np.ndarray, remainders: set[int], usual: np.ndarray) -> Iterator[int]:
    """A row for each remainder that is neither in `remainders` nor one of a `usual` row that can be padded.

    It is the one at three quarters of the order, as a model may treat rows above a certain length differently.
    """
    padded = order[split.lengths[order] < split.lengths[order[-1]]]
    there = remainders | set((split.lengths[np.intersect1d(usual, padded)] % GROUP).tolist())
    for remainder in sorted({*range(GROUP)} - there):
        alike = padded[split.lengths[padded] % GROUP == remainder]
        if len(alike):
            yield int(alike[len(alike) * 3 // 4])


def _partner(split: Split, row: int) -> tuple[Split, int]:
    same = np.flatnonzero(split.lengths == split.lengths[row])
    return split, next((int(other) for other in same if other != row), row)


def _joined(taken: Sequence[tuple[Split, int]]) -> Split:
    """These rows as one split, padded as their own splits are."""
    rows = [split.rows(np.array([row])) for split, row in taken]
    table = {name: [values for row in rows for values in row[name]] for name in rows[0]}
    lengths = np.array([split.lengths[row] for split, row in taken], dtype=np.int32)
    pad_to = taken[0][0].pad_to
    return Split(Dataset.from_dict(table).with_format("numpy"), lengths, None, np.arange(len(taken)), pad_to)
