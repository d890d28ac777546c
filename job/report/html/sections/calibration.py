"""Calibration: whether predicted probabilities match observed frequencies."""

from __future__ import annotations

from job.report.html import drawing, plots
from job.report.html.blocks import Picture, Section, Table, numbers_from
from job.report.html.calibration import BINS, Reliability
from job.report.html.run_files import RunFiles


def section(run: RunFiles) -> Section | None:
    """Reliability curve and expected calibration error; None for regression or without labels."""
    predicted = run.labelled
    if predicted is None or not predicted.kind.has_classes:
        return None
    reliability = run.reliability
    picture = Picture("reliability", "Reliability", _described(reliability, predicted.kind.one_label),
                      drawing.svg("reliability", plots.reliability(reliability)))  # fmt: skip
    return Section("calibration", "Calibration", [picture, _table(reliability)])


def _described(reliability: Reliability, one_label: bool) -> str:
    sure = reliability.overconfidence
    what = "Confidence is the probability of the predicted class."
    if not one_label:
        what = "Each class of each row counts as a prediction of its own; confidence is its probability."
    return (
        f"Expected calibration error {reliability.expected_error:.4f} ({BINS} bins of equal width). On average, "
        f"confidence is {100 * abs(sure):.1f} percentage points {'above' if sure > 0 else 'below'} the accuracy. "
        f"{what} Points below the dashed line: the model is too confident there."
    )


def _table(reliability: Reliability) -> Table:
    columns = ["confidence", "predictions", "mean confidence", "accuracy"]
    rows = [
        [f"{place / BINS:.2f} to {(place + 1) / BINS:.2f}", f"{int(reliability.counts[place]):,}",
         f"{reliability.confidence[place]:.3f}", f"{reliability.accuracy[place]:.3f}"]
        for place in range(BINS) if reliability.counts[place]
    ]  # fmt: skip
    return Table("Reliability as a table", columns, rows, numbers_from(1, columns), folded=True)
