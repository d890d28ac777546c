"""The score of a run with its confidence interval, and the score of a constant baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from job import resampling
from job.config import metrics
from job.config.metrics import OF_TWO_CLASSES, Deciding
from job.config.tasks import MULTI_LABEL, REGRESSION, Kind
from job.report.html.blocks import short
from job.report.html.predictions import Predicted
from job.report.html.run_files import RunFiles
from job.resampling import Interval, LabelledPredictions


@dataclass(frozen=True)
class Baseline:
    """The constant prediction, in words, and its score; None if we cannot compute the metric or it has no value."""

    prediction: str
    score: float | None


def deciding_number(run: RunFiles) -> str:
    """The name of the metric that decides which model is best."""
    return _deciding(run).number


def lower_is_better(run: RunFiles) -> bool:
    return _deciding(run).lower_is_better


def _deciding(run: RunFiles) -> Deciding:
    return metrics.deciding(run.settings, run.task.kind if run.task else None)


def interval(run: RunFiles, predicted: Predicted) -> Interval | None:
    """The confidence interval of the deciding metric; None if it is not in job.resampling."""
    metric = _resampling_name(predicted.kind, deciding_number(run))
    return (
        None
        if metric is None
        else resampling.interval(_positive_second(run, predicted.with_labels(), predicted), metric)
    )


def baseline(run: RunFiles, predicted: Predicted) -> Baseline:
    """The baseline that always predicts the most common class, or the mean label, of the training data.

    If the training data is unknown, that of the predicted rows is used.
    """
    train = run.data.get("description", {}).get("train", {})
    constant, words = _constant(predicted, train)
    metric = _resampling_name(predicted.kind, deciding_number(run))
    if metric is None or metric in ("pearsonr", "matthews_correlation"):  # undefined for constant predictions
        return Baseline(words, None)
    always = _positive_second(run, predicted.with_labels(constant), predicted)
    return Baseline(words, resampling.score(always, metric))


def _constant(predicted: Predicted, train: Mapping[str, Mapping[str, float]]) -> tuple[np.ndarray, str]:
    labels, rows = predicted.labels, len(predicted)
    assert labels is not None
    if predicted.kind == REGRESSION:
        mean = train["labels"]["mean"] if "labels" in train else float(labels.mean())
        return np.full(rows, mean), f"the mean label, {mean:.4g},"
    counts = train.get("classes") or {}
    if any(counts.values()):
        most = predicted.names.index(max(counts, key=counts.__getitem__))
    else:
        most = int((labels.sum(axis=0) if labels.ndim == 2 else np.bincount(labels)).argmax())
    words = f"“{short(predicted.names[most])}”, the most common class,"
    if predicted.kind == MULTI_LABEL:
        constant = np.zeros_like(labels)
        constant[:, most] = True
        return constant, words
    return np.full(rows, most), words


def _resampling_name(kind: Kind, number: str) -> str | None:
    """The name of a metric in resampling.METRICS; None if it is not there."""
    if kind == REGRESSION:
        known = resampling.NUMBERS
    else:
        known = resampling.SEVERAL_LABELS if kind == MULTI_LABEL else resampling.TWO_CLASSES
    return known.get(number)


def _positive_second(run: RunFiles, pairs: LabelledPredictions, predicted: Predicted) -> LabelledPredictions:
    """Move the positive class to the second place, where resampling's f1 of two classes expects it."""
    positive = run.settings.get("positive_label")
    if len(predicted.names) == 2 and positive == predicted.names[0] and deciding_number(run) == OF_TWO_CLASSES:
        return LabelledPredictions(pairs.labels[:, ::-1], pairs.predictions[:, ::-1])
    return pairs


def numbers(run: RunFiles) -> list[str]:
    """The names of the metrics to show, the deciding one first."""
    shown = [name for name, value in run.scores.items() if isinstance(value, float)]
    return sorted(shown, key=lambda name: name != deciding_number(run))
