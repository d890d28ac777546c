"""Probable label errors: confident learning (Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty
in Dataset Labels, Journal of Artificial Intelligence Research 70, 2021).

A class's threshold is the mean probability that the model gives it on the rows labelled with it. A row counts as a
probable error if, among the classes whose probability reaches their threshold, the most probable is not its label: it
is off the diagonal of the confident joint. As in the authors' package cleanlab, a row whose label is the predicted
class is never an error. The rule needs probabilities of rows that were not trained on, as an evaluation set's are.

cleanlab 2.9 finds the same rows in the same order (filter_by="confident_learning", ranked by self-confidence). It is
no dependency: one rule of ten lines, against 300 kB, a further package and an import as long as drawing the report.
"""

from __future__ import annotations

import numpy as np

from job.report.html.predictions import Predicted


def suspicious(labels: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose label is probably wrong, the least probable label first, and the class that each more likely is.

    Args:
        labels: int64[n], class numbers.
        probabilities: float[n, C].

    Returns:
        int64[k] rows, int64[k] classes.
    """
    probabilities = probabilities.astype(np.float64)
    own = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    counts = np.bincount(labels, minlength=probabilities.shape[1])
    sums = np.bincount(labels, weights=own, minlength=probabilities.shape[1])
    with np.errstate(invalid="ignore"):
        thresholds = np.where(counts > 0, sums / counts, np.inf)  # a class without a label has no confident row
    confident = np.where(probabilities >= thresholds, probabilities, -1.0)
    likely = confident.argmax(axis=1)
    predicted = probabilities.argmax(axis=1)
    rows = np.flatnonzero((confident.max(axis=1) >= 0) & (likely != labels) & (predicted != labels))
    rows = rows[np.argsort(own[rows], kind="stable")]
    return rows, likely[rows]


def of(predicted: Predicted) -> list[tuple[int, int, float]]:
    """(row, class, probability of the label as it is) of each probable error, the least probable label first.

    With several labels a row, each class is a yes or no of its own: `class` is then the one that should probably be
    changed. Nothing for regression.
    """
    assert predicted.labels is not None
    if not predicted.kind.has_classes:
        return []
    if predicted.kind.one_label:
        rows, classes = suspicious(predicted.labels, predicted.probabilities)
        own = predicted.probabilities[rows, predicted.labels[rows]]
        return list(zip(rows.tolist(), classes.tolist(), own.tolist(), strict=True))
    found = []
    for number in range(len(predicted.names)):
        yes, labels = predicted.probabilities[:, number], predicted.labels[:, number].astype(np.int64)
        both = np.stack([1 - yes, yes], axis=1)
        rows, _ = suspicious(labels, both)
        found += [(int(row), number, float(both[row, labels[row]])) for row in rows]
    return sorted(found, key=lambda error: error[2])
