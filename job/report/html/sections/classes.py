"""Classes: which ones are confused, and the scores of each."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import east_asian_width

import numpy as np

from job.report.html import drawing, mistakes, plots
from job.report.html.blocks import Paragraph, Picture, Section, Table, count, numbers_from, percent, short
from job.report.html.mistakes import Pair
from job.report.html.predictions import Predicted
from job.report.html.run_files import RunFiles

DRAWN_CLASSES = 100
"""With more classes, only the DRAWN_OF_MORE with the most errors are drawn."""
DRAWN_OF_MORE = 60
TABLED_CLASSES = 20
"""Up to this many classes, the matrix is also shown as a table."""
GROUPED_FROM = 13
"""From this many classes on, classes are ordered so that confused ones are neighbours."""
PAIRS = 20
LETTER_WIDTH = 0.66
"""Width of a letter in a class name, relative to the font size; letters of wide scripts are twice as wide."""


def confusion(run: RunFiles) -> Section | None:
    """The confusion matrix and the most confused pairs; None unless rows have exactly one label."""
    predicted = run.labelled
    if predicted is None or not predicted.kind.one_label:
        return None
    matrix = run.confusion_matrix
    pairs = mistakes.confused(matrix, PAIRS)
    drawn = drawn_classes(matrix)
    names = [predicted.names[number] for number in drawn]
    part = matrix[np.ix_(drawn, drawn)]
    picture = Picture(
        "confusion",
        "Confusion matrix" + ("" if len(drawn) == len(matrix) else f", the {len(drawn)} classes with the most errors"),
        _described(matrix, pairs, predicted),
        drawing.svg("confusion", plots.confusion(part, names), *size(names)),
        wide=len(drawn) > plots.ANNOTATED_CLASSES // 2,
    )
    return Section("confusion", "Confusion", [picture, *_pairs(pairs, predicted), *_matrix(matrix, predicted)])


def drawn_classes(matrix: np.ndarray) -> list[int]:
    """The classes in the picture, in order."""
    if len(matrix) < GROUPED_FROM:
        return list(range(len(matrix)))
    errors = matrix.sum(axis=0) + matrix.sum(axis=1) - 2 * np.diag(matrix)
    some = np.arange(len(matrix)) if len(matrix) <= DRAWN_CLASSES else np.sort(np.argsort(-errors)[:DRAWN_OF_MORE])
    return some[_grouped(matrix[np.ix_(some, some)])].tolist()


def _grouped(matrix: np.ndarray) -> np.ndarray:
    """An order in which confused classes are neighbours, from hierarchical clustering with average linkage."""
    from scipy.cluster.hierarchy import leaves_list, linkage

    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    together = shares + shares.T
    above = np.triu_indices(len(matrix), 1)
    return leaves_list(linkage(1 - together[above] / max(together[above].max(), 1e-9), "average"))


def size(names: Sequence[str]) -> tuple[float, float, float]:
    """Width and height of the picture, and the space for class names in both directions, in inches."""
    widest = max(sum(2 if east_asian_width(letter) in "WF" else 1 for letter in plots.shown(name)) for name in names)
    margin = widest * plots.name_size(len(names)) * LETTER_WIDTH / 72
    side = (0.6 if len(names) <= plots.ANNOTATED_CLASSES else 0.14) * len(names)
    return side * 1.1 + margin + 0.5, side * 0.85 + margin + 0.5, margin


def _described(matrix: np.ndarray, pairs: list[Pair], predicted: Predicted) -> str:
    right, rows = int(np.trace(matrix)), int(matrix.sum())
    sentences = [
        f"{right:,} of {rows:,} rows are on the diagonal, which are the correct ones.",
        "A row is a label, a column a prediction; the stronger the colour, the larger the share of the label's rows.",
    ]
    if pairs:
        most = pairs[0]
        label, prediction = (short(predicted.names[number]) for number in (most.label, most.prediction))
        sentences.append(f"Most often “{label}” is predicted as “{prediction}”: {count(most.rows, 'row')}.")
    return " ".join(sentences)


def _pairs(pairs: list[Pair], predicted: Predicted) -> list[Table | Paragraph]:
    if not pairs:
        return [Paragraph("No row is predicted as another class than its label.")]
    rows = [[predicted.names[p.label], predicted.names[p.prediction], f"{p.rows:,}", percent(p.share)] for p in pairs]
    columns = ["label", "predicted as", "rows", "of the label's rows"]
    return [Table("Most confused pairs", columns, rows, numbers_from(2, columns), frozenset({0, 1}))]


def _matrix(matrix: np.ndarray, predicted: Predicted) -> list[Table]:
    if len(matrix) > TABLED_CLASSES:
        return []
    columns = ["label", *(f"predicted as {short(name, 24)}" for name in predicted.names)]
    rows = [[short(name), *(f"{cell:,}" for cell in row)] for name, row in zip(predicted.names, matrix, strict=True)]
    return [Table("The confusion matrix as a table", columns, rows, numbers_from(1, columns), folded=True)]


def per_class(run: RunFiles) -> Section | None:
    """Precision, recall, F1 and support of each class, lowest F1 first."""
    scores = run.scores.get("per_class")
    if not scores or run.labelled is None:
        return None
    ordered = sorted(scores.items(), key=lambda item: item[1]["f1"])
    keys = ("precision", "recall", "f1")
    rows = [[name, *(f"{of[key]:.3f}" for key in keys), f"{of['support']:,}"] for name, of in ordered]
    columns = ["class", "precision", "recall", "F1", "support (rows)"]
    table = Table("Classes, the lowest F1 first", columns, rows, numbers_from(1, columns), frozenset({0}))
    return Section("classes", "Classes", [table])
