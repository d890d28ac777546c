"""Lengths in tokens: their distribution in each split, and the score of the model by length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from job.report.html.predictions import Predicted

BARS = 40
GROUPS = 8


def histogram(lengths: np.ndarray, longest: int) -> list[int]:
    """The number of rows in each bin of equal width over 1..`longest` tokens, at most BARS bins; see `edges`."""
    return np.histogram(lengths, bins=edges(longest))[0].tolist()


def edges(longest: int) -> np.ndarray:
    """The bin edges: each is half a token below the shortest length in its bin."""
    width = max(1, -(-longest // BARS))
    return np.arange(0.5, longest + width + 0.5, width)


def score_by_length(predicted: Predicted, lengths: np.ndarray) -> list[dict[str, Any]]:
    """Scores of groups of about equally many rows, from the shortest rows to the longest.

    Returns:
        For each group: "from" and "to" (tokens, inclusive), "rows", and "score", which is the accuracy, or the root
        mean squared error for regression.
    """
    assert predicted.labels is not None
    cuts = np.unique(np.quantile(lengths, np.linspace(0, 1, GROUPS + 1)[1:], method="inverted_cdf"))
    group = np.searchsorted(cuts, lengths)
    if predicted.kind.has_classes:
        values = (~predicted.wrong).astype(np.float64)
    else:
        values = (predicted.predictions - predicted.labels) ** 2
    rows = np.bincount(group, minlength=len(cuts))
    means = np.bincount(group, weights=values, minlength=len(cuts)) / rows
    scores = means if predicted.kind.has_classes else np.sqrt(means)
    least = np.array([lengths[group == number].min() for number in range(len(cuts))])
    columns: Mapping[str, np.ndarray] = {"from": least, "to": cuts, "rows": rows, "score": scores}
    return [dict(zip(columns, row, strict=True)) for row in zip(*(c.tolist() for c in columns.values()), strict=True)]
