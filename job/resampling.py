"""Metrics over resampled rows: the bootstrap (Efron, 1979) of one model's score, or of two models' difference.

Every metric here is a function of sums over rows (right answers, true positives of a class, squared errors). So a
resample is a weight for each row, all resamples are one matrix product, and rows that contribute the same are drawn
together (multinomial), which is the same distribution at a fraction of the work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
FEWEST_RESAMPLES = 200
MOST_DRAWS = 5_000_000
"""Distinct rows times resamples: beyond that, resamples become fewer. 25,000 different rows get the fewest."""
SEED = 42
LEVEL = 0.95
MERGED_COLUMNS = 8
CELLS_AT_ONCE = 10_000_000
"""Weights held in memory at a time."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Answers:
    """Labels of n rows and what one model says of them.

    Attributes:
        labels: bool[n, C], the classes of each row; float64[n] for regression.
        predictions: likewise.
    """

    labels: Array
    predictions: Array

    def of(self, rows: Array) -> Answers:
        """Those of some rows."""
        return Answers(self.labels[rows], self.predictions[rows])

    @property
    def right(self) -> Array:
        """bool[n]: the classes are exactly the labels; for regression never asked."""
        return (self.labels == self.predictions).all(axis=1)


@dataclass(frozen=True)
class Interval:
    """A metric of all rows, and the percentile interval of it over resampled rows."""

    value: float
    low: float
    high: float
    resamples: int


def score(answers: Answers, metric: str) -> float:
    """The metric, one of METRICS."""
    sums, value = METRICS[metric]
    first, counts = distinct(answers)
    return float(value(counts[None, :].astype(np.float64) @ sums(answers.of(first)), int(counts.sum()))[0])


def interval(answers: Answers, metric: str) -> Interval:
    """The metric, one of METRICS, with its interval at LEVEL; NaN where no resample has a value."""
    sums, value = METRICS[metric]
    first, counts = distinct(answers)
    parts, rows = sums(answers.of(first)), int(counts.sum())
    found = value(resampled_totals(parts, counts), rows)
    seen = value(counts[None, :].astype(np.float64) @ parts, rows)
    low, high = percentiles(found)
    return Interval(float(seen[0]), low, high, len(found))


def percentiles(found: Array) -> tuple[float, float]:
    """The ends of the interval at LEVEL; resamples without a value are left out."""
    known, tail = found[~np.isnan(found)], (1 - LEVEL) / 2
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [tail, 1 - tail])
    return float(low), float(high)


def resampled_totals(parts: Array, counts: Array) -> Array:
    """The sums over the rows of each resample, float64[r, m].

    Args:
        parts: float64[k, m], what a row contributes.
        counts: int64[k], how many rows contribute that.
    """
    parts, counts = _merged(parts, counts)
    rows = int(counts.sum())
    resamples = max(FEWEST_RESAMPLES, min(RESAMPLES, MOST_DRAWS // len(counts)))
    rng = np.random.default_rng(SEED)
    if len(counts) == rows:  # all rows differ: drawing them is faster than a multinomial of that many cells
        columns = np.ascontiguousarray(parts.T)
        drawn = (rng.integers(0, rows, rows, dtype=np.int32) for _ in range(resamples))
        return np.array([[column[rows_drawn].sum() for column in columns] for rows_drawn in drawn])
    at_once = max(1, CELLS_AT_ONCE // len(counts))
    sizes = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    return np.concatenate([rng.multinomial(rows, counts / rows, size=size) @ parts for size in sizes])


def _merged(parts: Array, counts: Array) -> tuple[Array, Array]:
    """Rows that contribute the same few numbers as one: there are two kinds for accuracy, for any classes."""
    if parts.shape[1] > MERGED_COLUMNS:
        return parts, counts
    values, place = np.unique(parts, axis=0, return_inverse=True)
    return values, np.bincount(place.ravel(), weights=counts).astype(np.int64)


def distinct(one: Answers, *others: Answers) -> tuple[Array, Array]:
    """One row of each kind, int64[k], and how many there are of it, int64[k]. Numbers are hardly ever the same.

    `others` are answers to the same rows.
    """
    if one.labels.dtype != bool:
        return np.arange(len(one.labels)), np.ones(len(one.labels), dtype=np.int64)
    tables = [one.labels, one.predictions, *(other.predictions for other in others)]
    packed = np.packbits(np.hstack(tables), axis=1)
    whole = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()  # sorts faster than rows
    _, first, counts = np.unique(whole, return_index=True, return_counts=True)
    return first, counts


def indicators(values: Sequence[Any], names: Sequence[str]) -> Array:
    """bool[n, C]: which of the classes `names` each value, a name or a list of names, holds."""
    number = {name: i for i, name in enumerate(names)}
    table = np.zeros((len(values), len(names)), dtype=bool)
    for row, value in enumerate(values):
        for name in [value] if isinstance(value, str) else value:
            table[row, number[name]] = True
    return table


# ---------------------------------------------------------------------------------------------------------------------
# Metrics: sums over rows, float64[n, m], and a number of their totals, [r, m] -> [r]


def _correct(answers: Answers) -> Array:
    return answers.right[:, None].astype(np.float64)


def _counts(answers: Answers) -> Array:
    """Of each class: true positives, predictions, labels; and whether the row is right."""
    labels, predictions = answers.labels, answers.predictions
    return np.hstack([labels & predictions, predictions, labels, answers.right[:, None]]).astype(np.float64)


def _split(totals: Array) -> tuple[Array, Array, Array]:
    classes = (totals.shape[1] - 1) // 3
    return totals[:, :classes], totals[:, classes : 2 * classes], totals[:, 2 * classes : 3 * classes]


def _f1(hits: Array, predicted: Array, labelled: Array) -> Array:
    """0 where a class is neither predicted nor there, as scikit-learn's zero_division=0 has it."""
    both = predicted + labelled
    return np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)


def _f1_macro(totals: Array, rows: int) -> Array:
    """Over the classes that occur."""
    hits, predicted, labelled = _split(totals)
    return _f1(hits, predicted, labelled).sum(axis=1) / (predicted + labelled > 0).sum(axis=1)


def _f1_macro_of_all(totals: Array, rows: int) -> Array:
    return _f1(*_split(totals)).mean(axis=1)


def _f1_weighted(totals: Array, rows: int) -> Array:
    labelled = _split(totals)[2]
    return (_f1(*_split(totals)) * labelled).sum(axis=1) / labelled.sum(axis=1)


def _pooled(answers: Answers) -> Array:
    """Over all classes of a row: true positives, predictions, labels."""
    labels, predictions = answers.labels, answers.predictions
    return np.stack([(labels & predictions).sum(axis=1), predictions.sum(axis=1), labels.sum(axis=1)], 1).astype(float)


def _f1_micro(totals: Array, rows: int) -> Array:
    return _f1(*totals.T)


def _f1_of_second(totals: Array, rows: int) -> Array:
    return _f1(*_split(totals))[:, 1]


def _matthews(totals: Array, rows: int) -> Array:
    """Gorodkin's correlation of several classes; 0 where either side is constant."""
    predicted, labelled = _split(totals)[1:]
    product = (rows**2 - (predicted**2).sum(axis=1)) * (rows**2 - (labelled**2).sum(axis=1))
    covariance = totals[:, -1] * rows - (predicted * labelled).sum(axis=1)
    return np.divide(covariance, np.sqrt(product), out=np.zeros_like(covariance), where=product > 0)


def _squared_error(answers: Answers) -> Array:
    return ((answers.labels - answers.predictions) ** 2)[:, None]


def _moments(answers: Answers) -> Array:
    x, y = answers.labels - answers.labels.mean(), answers.predictions - answers.predictions.mean()
    return np.stack([x, y, x * x, y * y, x * y], axis=1)


def _pearson(totals: Array, rows: int) -> Array:
    x, y, xx, yy, xy = totals.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return (xy - x * y / rows) / np.sqrt((xx - x * x / rows) * (yy - y * y / rows))


METRICS: dict[str, tuple[Callable[[Answers], Array], Callable[[Array, int], Array]]] = {
    "accuracy": (_correct, lambda totals, rows: totals[:, 0] / rows),
    "f1_macro": (_counts, _f1_macro),
    "f1_macro_of_all": (_counts, _f1_macro_of_all),
    "f1_weighted": (_counts, _f1_weighted),
    "f1_micro": (_pooled, _f1_micro),
    "f1": (_counts, _f1_of_second),
    "matthews_correlation": (_counts, _matthews),
    "rmse": (_squared_error, lambda totals, rows: np.sqrt(totals[:, 0] / rows)),
    "pearsonr": (_moments, _pearson),
}
ONE_LABEL = {name: name for name in ("accuracy", "f1_macro", "f1_weighted", "matthews_correlation")}
TWO_CLASSES = {**ONE_LABEL, "f1": "f1"}
SEVERAL_LABELS = {"accuracy": "accuracy", "f1_micro": "f1_micro", "f1_macro": "f1_macro_of_all"}
NUMBERS = {"rmse": "rmse", "pearsonr": "pearsonr"}
"""What the job calls a number -> its name in METRICS, for each kind of task, as job/metrics has them."""
