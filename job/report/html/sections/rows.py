"""Single rows: the most confident mistakes, and probable label errors, with their text."""

from __future__ import annotations

import numpy as np

from job.config.tasks import REGRESSION
from job.report.html import mistakes, recorded
from job.report.html.blocks import Paragraph, Section, Table, count
from job.report.html.predictions import Predicted
from job.report.html.run_files import RunFiles

NO_TEXT = "(the text was not recorded)"


def worst(run: RunFiles) -> Section | None:
    """The wrong predictions with the highest confidence; for regression the rows with the largest error."""
    predicted = run.labelled
    if predicted is None:
        return None
    rows = mistakes.most_confident(predicted, recorded.SHOWN_MISTAKES)
    if predicted.kind == REGRESSION:
        caption, certainty = "Rows with the largest error", "error"
    else:
        caption, certainty = "Mistakes, the most confident first", "confidence"
    if not len(rows):
        return Section("mistakes", "Mistakes", [Paragraph("There are none.")])
    cells = [
        [_row(predicted, row), _label(predicted, row), _shown(predicted, predicted.predictions[row]),
         _certainty(predicted, row), *_texts(run, predicted, row)]
        for row in rows.tolist()
    ]  # fmt: skip
    columns = ["row", "label", "predicted", certainty, *_text_columns(run)]
    note = f"Row numbers count from 0 in the source of the {run.split} set."
    if predicted.kind != REGRESSION:
        note = f"{int(predicted.wrong.sum()):,} of {count(len(predicted), 'row')} are wrong. {note}"
    return Section("mistakes", "Mistakes", [Paragraph(note), _table(caption, columns, cells)])


def suspicious(run: RunFiles) -> Section | None:
    """The rows whose label is probably wrong; None for regression."""
    predicted = run.labelled
    if predicted is None or predicted.kind == REGRESSION:
        return None
    found = run.label_errors
    rule = Paragraph(
        f"{count(len(found), 'label')} that the model contradicts with at least its usual confidence in another class "
        "(confident learning; Northcutt, Jiang and Chuang, 2021). Look before you change one: the model may be wrong."
    )
    if not found:
        return Section("label-errors", "Probable label errors", [rule])
    cells = [
        [_row(predicted, row), _label(predicted, row), _suggested(predicted, row, number), f"{own:.3f}",
         *_texts(run, predicted, row)]
        for row, number, own in found[: recorded.SHOWN_LABEL_ERRORS]
    ]  # fmt: skip
    columns = ["row", "label", "more likely", "probability of the label", *_text_columns(run)]
    return Section("label-errors", "Probable label errors",
                   [rule, _table("Probable label errors, the least probable label first", columns, cells)])  # fmt: skip


def _table(caption: str, columns: list[str], cells: list[list[str]]) -> Table:
    texts = frozenset({1, 2, *range(4, len(columns))})
    return Table(caption, columns, cells, frozenset({0, 3}), texts)


def _row(predicted: Predicted, row: int) -> str:
    return str(predicted.index[row])


def _label(predicted: Predicted, row: int) -> str:
    assert predicted.labels is not None
    return _shown(predicted, predicted.labels[row])


def _shown(predicted: Predicted, value: np.ndarray) -> str:
    if predicted.kind == REGRESSION:
        return f"{value:.4g}"
    if predicted.kind.one_label:
        return predicted.names[int(value)]
    return ", ".join(predicted.names[number] for number in np.flatnonzero(value)) or "(none)"


def _suggested(predicted: Predicted, row: int, number: int) -> str:
    if predicted.kind.one_label:
        return predicted.names[number]
    assert predicted.labels is not None
    return f"without {predicted.names[number]}" if predicted.labels[row, number] else f"with {predicted.names[number]}"


def _certainty(predicted: Predicted, row: int) -> str:
    assert predicted.labels is not None
    if predicted.kind == REGRESSION:
        return f"{predicted.predictions[row] - predicted.labels[row]:+.4g}"
    if predicted.kind.one_label:
        return f"{predicted.confidence[row]:.3f}"
    return f"{np.abs(predicted.probabilities[row] - predicted.labels[row]).max():.3f}"


def _text_columns(run: RunFiles) -> list[str]:
    return list(run.data.get("text_columns", ())) or ["text"]


def _texts(run: RunFiles, predicted: Predicted, row: int) -> list[str]:
    columns = _text_columns(run)
    found = run.rows.get("texts", {}) if run.rows.get("split") == run.split else {}
    texts = found.get(str(predicted.index[row]), [NO_TEXT])
    return [*texts, *[""] * len(columns)][: len(columns)]
