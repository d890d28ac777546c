"""Mistakes of the model: the most confident ones, and the most confused classes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from job.report.html.predictions import Predicted


@dataclass(frozen=True)
class Pair:
    """The rows with label `label` that are predicted as `prediction`: their number, and share of the rows with the
    label."""

    label: int
    prediction: int
    rows: int
    share: float


def most_confident(predicted: Predicted, most: int) -> np.ndarray:
    """int64[k], the wrong predictions with the highest confidence; for regression those with the largest error."""
    assert predicted.labels is not None
    if not predicted.kind.has_classes:
        size = np.abs(predicted.predictions - predicted.labels)
        return np.argsort(-size, kind="stable")[:most]
    if predicted.kind.one_label:
        size = np.where(predicted.wrong, predicted.confidence, -1.0)
    else:
        size = np.where(predicted.wrong, np.abs(predicted.probabilities - predicted.labels).max(axis=1), -1.0)
    order = np.argsort(-size, kind="stable")[:most]
    return order[size[order] >= 0]


def confused(matrix: np.ndarray, most: int) -> list[Pair]:
    """The largest off-diagonal cells of a confusion matrix, int64[C, C] with labels as rows."""
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    order = np.argsort(-off, axis=None, kind="stable")[:most]
    totals = matrix.sum(axis=1)
    places = [divmod(int(place), len(matrix)) for place in order]
    return [Pair(i, j, int(off[i, j]), float(off[i, j] / totals[i])) for i, j in places if off[i, j]]


def confusion_matrix(predicted: Predicted) -> np.ndarray:
    """int64[C, C], rows: label, columns: prediction; only for tasks with one label per row."""
    assert predicted.labels is not None
    classes = len(predicted.names)
    flat = np.bincount(predicted.labels * classes + predicted.predictions, minlength=classes * classes)
    return flat.reshape(classes, classes)
