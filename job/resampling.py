"""Bootstrap (Efron, 1979) of metrics: for the score of one model, or the difference between two models.

Every metric here is a function of sums over rows (correct predictions, true positives of a class, squared errors). So
a resample is a vector of row counts, and all resamples are computed with one matrix product. Identical rows are drawn
together from a multinomial distribution, which gives the same distribution with much less work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 2000
FEWEST_RESAMPLES = 200
MOST_DRAWS = 5_000_000
"""Limit of distinct rows times resamples: beyond it, fewer resamples are drawn; from 25,000 distinct rows on, the
fewest."""
SEED = 42
LEVEL = 0.95
MERGED_COLUMNS = 8
CELLS_AT_ONCE = 10_000_000
"""Number of row counts that are in memory at a time."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class LabelledPredictions:
    """Labels of n rows and the predictions of a model for them.

    Attributes:
        labels: bool[n, C], the classes of each row; float64[n] for regression.
        predictions: in the form of `labels`.
    """

    labels: Array
    predictions: Array

    def of(self, rows: Array) -> LabelledPredictions:
        """Labels and predictions of these rows only."""
        return LabelledPredictions(self.labels[rows], self.predictions[rows])

    @property
    def right(self) -> Array:
        """bool[n]: whether the predicted classes are exactly the labels. Not for regression."""
        return (self.labels == self.predictions).all(axis=1)


@dataclass(frozen=True)
class Interval:
    """The value of a metric on all rows, and its percentile interval over the resamples."""

    value: float
    low: float
    high: float
    resamples: int


def score(predicted: LabelledPredictions, metric: str) -> float:
    """The value of a metric, one of METRICS."""
    sums, value = METRICS[metric]
    first, counts = distinct(predicted)
    return float(value(counts[None, :].astype(np.float64) @ sums(predicted.of(first)), int(counts.sum()))[0])


def interval(predicted: LabelledPredictions, metric: str) -> Interval:
    """The value of a metric, one of METRICS, with its interval at LEVEL; NaN if no resample has a value."""
    sums, value = METRICS[metric]
    first, counts = distinct(predicted)
    parts, rows = sums(predicted.of(first)), int(counts.sum())
    resampled = value(resampled_totals(parts, counts), rows)
    observed = value(counts[None, :].astype(np.float64) @ parts, rows)
    low, high = percentiles(resampled)
    return Interval(float(observed[0]), low, high, len(resampled))


def percentiles(values: Array) -> tuple[float, float]:
    """The bounds of the interval at LEVEL; NaN values are ignored."""
    defined, tail = values[~np.isnan(values)], (1 - LEVEL) / 2
    if not len(defined):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def resampled_totals(parts: Array, counts: Array) -> Array:
    """The sums over the rows of each resample, float64[r, m].

    Args:
        parts: float64[k, m], the summands of each distinct row.
        counts: int64[k], the number of rows with these summands.
    """
    parts, counts = _merged(parts, counts)
    rows = int(counts.sum())
    resamples = max(FEWEST_RESAMPLES, min(RESAMPLES, MOST_DRAWS // len(counts)))
    rng = np.random.default_rng(SEED)
    if len(counts) == rows:  # all rows are distinct: drawing row numbers is faster than a multinomial
        columns = np.ascontiguousarray(parts.T)
        drawn = (rng.integers(0, rows, rows, dtype=np.int32) for _ in range(resamples))
        return np.array([[column[rows_drawn].sum() for column in columns] for rows_drawn in drawn])
    at_once = max(1, CELLS_AT_ONCE // len(counts))
    sizes = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    return np.concatenate([rng.multinomial(rows, counts / rows, size=size) @ parts for size in sizes])


def _merged(parts: Array, counts: Array) -> tuple[Array, Array]:
    """Merge rows with equal summands: for accuracy, only two kinds are left, for any number of classes."""
    if parts.shape[1] > MERGED_COLUMNS:
        return parts, counts
    values, place = np.unique(parts, axis=0, return_inverse=True)
    return values, np.bincount(place.ravel(), weights=counts).astype(np.int64)


def distinct(one: LabelledPredictions, *others: LabelledPredictions) -> tuple[Array, Array]:
    """(one row of each group of identical rows, int64[k]; size of the group, int64[k]).

    Rows are identical if labels and predictions are equal, also those of `others`, which are for the same rows. For
    regression rows are not grouped: numbers are rarely equal.
    """
    if one.labels.dtype != bool:
        return np.arange(len(one.labels)), np.ones(len(one.labels), dtype=np.int64)
    tables = [one.labels, one.predictions, *(other.predictions for other in others)]
    packed = np.packbits(np.hstack(tables), axis=1)
    keys = np.ascontiguousarray(packed).view(np.dtype((np.void, packed.shape[1]))).ravel()  # sorts faster than rows
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    return first, counts


def indicators(values: Sequence[Any], names: Sequence[str]) -> Array:
    """bool[n, C], multi-hot: whether value n, a name or a list of names, contains class `names[C]`."""
    number = {name: i for i, name in enumerate(names)}
    table = np.zeros((len(values), len(names)), dtype=bool)
    for row, value in enumerate(values):
        for name in [value] if isinstance(value, str) else value:
            table[row, number[name]] = True
    return table


# ---------------------------------------------------------------------------------------------------------------------
# Metrics: a function for the summands of each row, float64[n, m], and one of their totals, [r, m] -> [r]


def _correct(predicted: LabelledPredictions) -> Array:
    return predicted.right[:, None].astype(np.float64)


def _counts(predicted: LabelledPredictions) -> Array:
    """True positives, predictions and labels of each class; and whether the row is right."""
    labels, predictions = predicted.labels, predicted.predictions
    return np.hstack([labels & predictions, predictions, labels, predicted.right[:, None]]).astype(np.float64)


def _split(totals: Array) -> tuple[Array, Array, Array]:
    classes = (totals.shape[1] - 1) // 3
    return totals[:, :classes], totals[:, classes : 2 * classes], totals[:, 2 * classes : 3 * classes]


def _f1(hits: Array, predicted: Array, labelled: Array) -> Array:
    """F1; 0 if a class has neither predictions nor labels, as with scikit-learn's zero_division=0."""
    both = predicted + labelled
    return np.divide(2 * hits, both, out=np.zeros_like(hits), where=both > 0)


def _f1_macro(totals: Array, rows: int) -> Array:
    """Mean F1 over the classes that occur in labels or predictions."""
    hits, predicted, labelled = _split(totals)
    return _f1(hits, predicted, labelled).sum(axis=1) / (predicted + labelled > 0).sum(axis=1)


def _f1_macro_of_all(totals: Array, rows: int) -> Array:
    return _f1(*_split(totals)).mean(axis=1)


def _f1_weighted(totals: Array, rows: int) -> Array:
    labelled = _split(totals)[2]
    return (_f1(*_split(totals)) * labelled).sum(axis=1) / labelled.sum(axis=1)


def _pooled(predicted: LabelledPredictions) -> Array:
    """True positives, predictions and labels, each summed over the classes."""
    labels, predictions = predicted.labels, predicted.predictions
    return np.stack([(labels & predictions).sum(axis=1), predictions.sum(axis=1), labels.sum(axis=1)], 1).astype(float)


def _f1_micro(totals: Array, rows: int) -> Array:
    return _f1(*totals.T)


def _f1_of_second(totals: Array, rows: int) -> Array:
    return _f1(*_split(totals))[:, 1]


def _matthews(totals: Array, rows: int) -> Array:
    """Gorodkin's correlation for several classes; 0 if labels or predictions are constant."""
    predicted, labelled = _split(totals)[1:]
    product = (rows**2 - (predicted**2).sum(axis=1)) * (rows**2 - (labelled**2).sum(axis=1))
    covariance = totals[:, -1] * rows - (predicted * labelled).sum(axis=1)
    return np.divide(covariance, np.sqrt(product), out=np.zeros_like(covariance), where=product > 0)


def _squared_error(predicted: LabelledPredictions) -> Array:
    return ((predicted.labels - predicted.predictions) ** 2)[:, None]


def _moments(predicted: LabelledPredictions) -> Array:
    x, y = predicted.labels - predicted.labels.mean(), predicted.predictions - predicted.predictions.mean()
    return np.stack([x, y, x * x, y * y, x * y], axis=1)


def _pearson(totals: Array, rows: int) -> Array:
    x, y, xx, yy, xy = totals.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return (xy - x * y / rows) / np.sqrt((xx - x * x / rows) * (yy - y * y / rows))


METRICS: dict[str, tuple[Callable[[LabelledPredictions], Array], Callable[[Array, int], Array]]] = {
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
"""Metric name in job/metrics -> name in METRICS, for each kind of task."""
