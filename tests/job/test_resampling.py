"""The interval of a score is that of plain resampling, and always the same."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from job import resampling
from job.resampling import LabelledPredictions

ROWS = 300


def random_rows(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray, LabelledPredictions]:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, rows)
    predictions = np.where(rng.random(rows) < 0.3, rng.integers(0, 3, rows), labels)
    one_hot = np.eye(3, dtype=bool)
    return labels, predictions, LabelledPredictions(one_hot[labels], one_hot[predictions])


@pytest.mark.parametrize("name", ["accuracy", "f1_macro"])
def test_classes(name: str) -> None:
    labels, predictions, given = random_rows()
    score = {
        "accuracy": metrics.accuracy_score,
        "f1_macro": lambda y, p: metrics.f1_score(y, p, average="macro", zero_division=0),
    }[name]
    interval = resampling.interval(given, name)
    assert interval.value == pytest.approx(score(labels, predictions)) == pytest.approx(resampling.score(given, name))
    rows = np.random.default_rng(1).integers(0, ROWS, (1500, ROWS))
    low, high = np.quantile([score(labels[drawn], predictions[drawn]) for drawn in rows], [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.12 * (high - low))
    assert interval == resampling.interval(given, name)


@pytest.mark.parametrize("rows", [200, 60_000])
def test_numbers(rows: int) -> None:
    """Many rows have fewer resamples, and the interval still agrees with the known spread of the mean squared error."""
    rng = np.random.default_rng(0)
    labels = rng.normal(size=rows)
    errors = rng.normal(size=rows)
    interval = resampling.interval(LabelledPredictions(labels, labels + errors), "rmse")
    squared = errors**2
    spread = 1.96 * squared.std() / np.sqrt(rows) / 2 / np.sqrt(squared.mean())
    assert interval.value == pytest.approx(np.sqrt(squared.mean()))
    assert (interval.value - interval.low, interval.high - interval.value) == pytest.approx((spread, spread), rel=0.2)
    assert interval.resamples == (2000 if rows == 200 else 200)
