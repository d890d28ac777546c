"""Predictions without labels: which classes were predicted, and how confidently."""

from __future__ import annotations

import numpy as np

from job.report.html.blocks import Section, Table, numbers_from, percent
from job.report.html.run_files import RunFiles


def section(run: RunFiles) -> Section | None:
    """The distribution of predictions; None if there are labels, for which other sections show more."""
    predicted = run.predicted
    if predicted is None or predicted.labels is not None:
        return None
    rows = len(predicted)
    if not predicted.kind.has_classes:
        values = np.percentile(predicted.predictions, (0, 25, 50, 75, 100))
        names = ("lowest", "a quarter up to", "median", "three quarters up to", "highest")
        cells = [[name, f"{value:.4g}"] for name, value in zip(names, values, strict=True)]
        return Section("predicted", "Predictions", [Table("Predicted numbers", ["", "value"], cells, frozenset({1}))])
    chosen = predicted.predictions
    member = chosen if chosen.ndim == 2 else np.eye(len(predicted.names), dtype=bool)[chosen]
    counts = member.sum(axis=0)
    means = (predicted.probabilities * member).sum(axis=0) / np.maximum(counts, 1)
    columns = ["class", "rows", "of all rows", "mean probability there"]
    cells = [
        [predicted.names[number], f"{counts[number]:,}", percent(counts[number] / rows), f"{means[number]:.3f}"]
        for number in np.argsort(-counts, kind="stable") if counts[number]
    ]  # fmt: skip
    table = Table("Predicted classes", columns, cells, numbers_from(1, columns), frozenset({0}))
    return Section("predicted", "Predictions", [table])
