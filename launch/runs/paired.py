"""Two models on the same rows: the difference of a metric with a confidence interval, and McNemar's test."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from job import resampling
from job.resampling import METRICS, Array, LabelledPredictions


@dataclass(frozen=True)
class Difference:
    """A metric of two models, and B - A with its interval."""

    a: float
    b: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """Rows that only one model predicts correctly, and the exact two-sided p-value."""

    only_a: int
    only_b: int
    p: float


def difference(a: LabelledPredictions, b: LabelledPredictions, metric: str) -> Difference:
    """The metric of both, and the percentile interval of its difference over paired resamples of the rows."""
    sums, value = METRICS[metric]
    first, counts = resampling.distinct(a, b)
    parts = np.hstack([sums(a.of(first)), sums(b.of(first))])
    half, rows = parts.shape[1] // 2, int(counts.sum())

    def of(totals: Array) -> tuple[Array, Array]:
        return value(totals[:, :half], rows), value(totals[:, half:], rows)

    seen_a, seen_b = of(counts[None, :].astype(np.float64) @ parts)
    drawn_a, drawn_b = of(resampling.resampled_totals(parts, counts))
    low, high = resampling.percentiles(drawn_b - drawn_a)
    return Difference(float(seen_a[0]), float(seen_b[0]), low, high)


def mcnemar(a: LabelledPredictions, b: LabelledPredictions) -> McNemar:
    """The exact test on the rows that only one of the two predicts correctly."""
    from scipy.stats import binomtest

    only_a, only_b = int((a.right & ~b.right).sum()), int((b.right & ~a.right).sum())
    split = only_a + only_b
    return McNemar(only_a, only_b, float(binomtest(only_a, split, 0.5).pvalue) if split else 1.0)
