"""Probable label errors: confident learning (Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty
in Dataset Labels, Journal of Artificial Intelligence Research 70, 2021).

The threshold of a class is the mean probability that the model gives it on the rows with that label. Among the classes
whose probability reaches their threshold, take the most probable one: if it is not the label, the row is a probable
error (it is off the diagonal of the confident joint). As in the authors' package cleanlab, a row whose label is the
predicted class is never an error. The method needs out-of-sample probabilities, such as those of an evaluation set.

cleanlab 2.9 finds the same rows in the same order (filter_by="confident_learning", ranked by self-confidence). It is
not used, because the rule has ten lines, and importing cleanlab takes as long as drawing the report.
"""

from __future__ import annotations

import numpy as np

from job.report.html.predictions import Predicted

CELLS_AT_ONCE = 1_000_000
"""Probabilities that are copied at a time: copies of all might not fit in memory, before the results are written."""


def suspicious(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose label is probably wrong, least probable label first, and the class that is more likely.

    Args:
        labels: int64[n], class numbers.
        probabilities: float[n, C].

    Returns:
        int64[k] rows, int64[k] classes.
    """
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0].astype(np.float64)
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    with np.errstate(invalid="ignore"):
        thresholds = np.where(counts > 0, sums / counts, np.inf)  # a class without labels has no threshold
    likely = _most_probable_above(thresholds, probabilities)
    predicted = probabilities.argmax(axis=1)
    rows = np.flatnonzero((likely >= 0) & (likely != labels) & (predicted != labels))
    rows = rows[np.argsort(own[rows], kind="stable")]
    return rows, likely[rows]


def _most_probable_above(thresholds: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """int64[n]: the most probable class of each row among those that reach their threshold; -1 if none does."""
    found = np.full(len(probabilities), -1)
    at_once = max(1, CELLS_AT_ONCE // len(thresholds))
    for start in range(0, len(probabilities), at_once):
        block = probabilities[start : start + at_once].astype(np.float64)
        confident = np.where(block >= thresholds, block, -1.0)
        found[start : start + at_once] = np.where(confident.max(axis=1) >= 0, confident.argmax(axis=1), -1)
    return found


def of(predicted: Predicted) -> list[tuple[int, int, float]]:
    """(row, more likely class, probability of the given label) of each probable error, least probable label first.

    With several labels per row, each class is treated as a binary label, and the class in the tuple is the one that
    should probably be added or removed. Empty for regression.
    """
    assert predicted.labels is not None
    if not predicted.kind.has_classes:
        return []
    if predicted.kind.one_label:
        rows, classes = suspicious(predicted.labels, predicted.probabilities)
        own = predicted.probabilities[rows, predicted.labels[rows]]
        return list(zip(rows.tolist(), classes.tolist(), own.tolist(), strict=True))
    errors = []
    for number in range(len(predicted.names)):
        yes, labels = predicted.probabilities[:, number], predicted.labels[:, number].astype(np.int64)
        both = np.stack([1 - yes, yes], axis=1)
        rows, _ = suspicious(labels, both)
        errors += [(int(row), number, float(both[row, labels[row]])) for row in rows]
    return sorted(errors, key=lambda error: error[2])
