"""Regression: predicted against true numbers, and the errors."""

from __future__ import annotations

import numpy as np

from job.config.tasks import REGRESSION
from job.report.html import drawing, plots
from job.report.html.blocks import Picture, Section, Table, numbers_from
from job.report.html.run_files import RunFiles

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


def section(run: RunFiles) -> Section | None:
    """Predicted against true numbers, and the errors; None unless the task is regression."""
    predicted = run.labelled
    if predicted is None or predicted.kind != REGRESSION:
        return None
    assert predicted.labels is not None
    errors = predicted.predictions - predicted.labels
    fitted = Picture(
        "against", "Predicted against label",
        f"Labels lie between {predicted.labels.min():.4g} and {predicted.labels.max():.4g}, predictions between "
        f"{predicted.predictions.min():.4g} and {predicted.predictions.max():.4g}. On the dashed line they are equal.",
        drawing.svg("against", plots.against(predicted.labels, predicted.predictions), 4.8, 4.2),
    )  # fmt: skip
    spread = Picture(
        "residuals", "Errors",
        f"Mean error {errors.mean():+.4g}, mean absolute error {np.abs(errors).mean():.4g}; half of the errors lie "
        f"between {np.percentile(errors, 25):+.4g} and {np.percentile(errors, 75):+.4g}.",
        drawing.svg("residuals", plots.residuals(errors), 4.8, 4.2),
    )  # fmt: skip
    return Section("numbers", "Predicted and true numbers", [fitted, spread, _table(errors)])


def _table(errors: np.ndarray) -> Table:
    columns = ["percentile", "error"]
    rows = [[str(percent), f"{np.percentile(errors, percent):+.4g}"] for percent in PERCENTILES]
    return Table("Errors as a table (predicted less label)", columns, rows, numbers_from(0, columns), folded=True)
