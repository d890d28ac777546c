"""Writes report.html and its pictures into a run folder."""

from __future__ import annotations

import functools

from job.report.html import drawing, page, plots, run_files
from job.report.html.drawing import LIGHT, Draw
from job.report.html.run_files import RunFiles
from job.report.html.sections import classes, learning
from job.run.folder import RunFolder
from job.runtime import files
from job.runtime.console import log

COLUMNS = 3
"""Number of columns in the picture of all learning curves."""


def write_at_end(folder: RunFolder) -> None:
    """Write the report of a run that has just finished. A failure is only logged, in one line."""
    try:
        write(folder)
    except Exception as error:  # noqa: BLE001  the run itself is finished
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        log.warning(f"report.html could not be written ({reason}); the run is complete: `muster report` tries again")


def write(folder: RunFolder) -> None:
    """Write report.html, and its main pictures as PNG into report/.

    Raises:
        OSError: the folder cannot be written.
    """
    run = run_files.read(folder.path)
    files.write_text(folder.report, page.render(run))
    folder.report_files.mkdir(exist_ok=True)
    _write_curves(run)
    for name, (draw, *size) in _pictures(run).items():
        with drawing.settings():
            figure = drawing.figure(draw, LIGHT, *size)
            files.publish(folder.report_files / f"{name}.png", functools.partial(drawing.png, figure))


def _write_curves(run: RunFiles) -> None:
    """Write a picture of all learning curves side by side."""
    from matplotlib.figure import Figure

    shown = learning.pictures(run)
    if not shown:
        return
    with drawing.settings():
        lines = -(-len(shown) // COLUMNS)
        figure = Figure(figsize=(3.6 * min(COLUMNS, len(shown)), 2.6 * lines))
        figure.subplots_adjust(0.07, 0.23 / lines, 0.99, 1 - 0.12 / lines, wspace=0.3, hspace=0.45)
        for number, (title, _, draw) in enumerate(shown.values()):
            axes = figure.add_subplot(lines, min(COLUMNS, len(shown)), number + 1)
            axes.set_title(title, fontsize=10)
            drawing.add(axes, draw, LIGHT)
        files.publish(run.folder.report_files / "learning_curves.png", functools.partial(drawing.png, figure))


def _pictures(run: RunFiles) -> dict[str, tuple[Draw, *tuple[float, ...]]]:
    """File name -> drawing and sizes of the pictures of predictions."""
    predicted = run.labelled
    if predicted is None or predicted.labels is None:
        return {}
    pictures: dict[str, tuple[Draw, *tuple[float, ...]]] = {}
    if predicted.kind.one_label:
        matrix = run.confusion_matrix
        drawn = classes.drawn_classes(matrix)
        part, names = matrix[drawn][:, drawn], [predicted.names[number] for number in drawn]
        pictures["confusion_matrix"] = (plots.confusion(part, names), *classes.size(names))
    if predicted.kind.has_classes:
        pictures["reliability"] = (plots.reliability(run.reliability), 4.8, 3.2)
    else:
        pictures["predicted_against_label"] = (plots.against(predicted.labels, predicted.predictions), 4.8, 4.2)
        pictures["errors"] = (plots.residuals(predicted.predictions - predicted.labels), 4.8, 3.2)
    return pictures
