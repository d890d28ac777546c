"""Tokenised examples made from numbers, for tests that are about batches and not about text."""

from __future__ import annotations

import numpy as np

from job.data.dataset import Split

CLS, SEP, FIRST_LETTER = 2, 3, 5


def split_of(size: int, *, classes: int, seed: int, longest: int = 24) -> Split:
    """`size` examples of 3..`longest` random tokens with random labels, for the vocabulary of tests.support.tiny."""
    from datasets import Dataset

    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, longest + 1, size)
    ids = [[CLS, *rng.integers(FIRST_LETTER, FIRST_LETTER + 36, length - 2).tolist(), SEP] for length in lengths]
    table = Dataset.from_dict({"input_ids": ids, "token_type_ids": [[0] * len(row) for row in ids]})
    labels = rng.integers(0, classes, size)
    return Split(table.with_format("numpy"), lengths.astype(np.int32), labels, np.arange(size))
