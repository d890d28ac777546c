"""The pictures: each function returns a function that draws on given axes. The values are computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from job.report.html.blocks import short
from job.report.html.calibration import BINS, Reliability
from job.report.html.curves import Curve
from job.report.html.drawing import Draw, Palette, make_logarithmic

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHADES = 10
"""Number of opacity levels of a heat map. All cells of a level are one SVG path, which keeps the file small."""
ANNOTATED_CLASSES = 12
"""Up to this many classes, all cells of a confusion matrix show their number of rows."""
NUMBERED_PAIRS = 30
"""With more classes, only this many cells, the most confused pairs, show it."""
LEVEL_CLASSES = 3
"""Up to this many classes, names below the matrix are horizontal."""
MOST_DOTS = 1500
SPREAD = 100
"""The y axis is logarithmic if the largest value is more than this many times the smallest."""


@dataclass(frozen=True)
class Marks:
    """Steps marked in every curve: the best evaluation, and the checkpoints from which the run was restarted."""

    best: int | None
    restarts: Sequence[int]


def curves(named: Mapping[str, Curve], marks: Marks, label: str, dots: frozenset[str] = frozenset()) -> Draw:
    """Curves over training steps; those in `dots` are drawn with markers, as they have few points."""

    def draw(axes: Axes, palette: Palette) -> None:
        colors = (palette.first, palette.second, palette.third)
        for (name, curve), color, line in zip(named.items(), colors, ("-", "--", ":"), strict=False):
            marker: dict[str, Any] = {"marker": "o", "markersize": 4} if name in dots or len(curve) == 1 else {}
            axes.plot(curve.steps, curve.values, line, color=color, linewidth=1.4, label=name, **marker)
        values = np.concatenate([curve.values for curve in named.values()])
        if len(values) and values.min() > 0 and values.max() > SPREAD * values.min():
            make_logarithmic(axes, "y")
        for number, step in enumerate(marks.restarts):
            axes.axvline(step, color=palette.muted, linewidth=1, linestyle=":", label="restart" if not number else None)
        if marks.best is not None:
            axes.axvline(marks.best, color=palette.third, linewidth=1, linestyle="-.", label="best")
        axes.locator_params(axis="x", integer=True)
        axes.set_xlabel("step")
        axes.set_ylabel(label)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            axes.legend(fontsize=8, loc="best", handlelength=1.8)

    return draw


def shaded(shares: np.ndarray, axes: Axes, color: str) -> None:
    """A heat map of one colour: the larger the share (0..1), the more opaque the cell; row 0 is at the top."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    levels = np.ceil(np.clip(shares, 0, 1) ** 0.6 * SHADES).astype(int)
    for level in range(1, SHADES + 1):
        rows, columns = np.nonzero(levels == level)
        if not len(rows):
            continue
        corners = np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (-0.5, -0.5)])
        vertices = (np.stack([columns, rows], axis=1)[:, None, :] + corners).reshape(-1, 2)
        codes = np.tile([Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY], len(rows))
        cells = PathPatch(Path(vertices, codes), facecolor=color, alpha=level / SHADES, linewidth=0)
        axes.add_artist(cells)  # faster than add_patch, which computes the extent of each path


def confusion(matrix: np.ndarray, names: Sequence[str]) -> Draw:
    """A confusion matrix: rows are labels, the opacity is the share of the label's rows."""
    classes = len(names)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)

    def draw(axes: Axes, palette: Palette) -> None:
        shaded(shares, axes, palette.first)
        axes.set(xlim=(-0.5, classes - 0.5), ylim=(classes - 0.5, -0.5), xlabel="predicted", ylabel="label")
        size, labels = name_size(classes), [shown(name) for name in names]
        axes.set_xticks(range(classes), labels, fontsize=size)
        if classes > LEVEL_CLASSES:
            for text in axes.get_xticklabels():
                text.set(rotation=90, rotation_mode="anchor", ha="right", va="center")
        axes.set_yticks(range(classes), labels, fontsize=size)
        axes.tick_params(length=0)
        axes.grid(False)
        numbered = matrix if classes <= ANNOTATED_CLASSES else _largest(matrix, NUMBERED_PAIRS)
        for row, column in np.argwhere(numbered):
            color = palette.paper if shares[row, column] > 0.7 else palette.ink
            axes.text(column, row, f"{matrix[row, column]:,}", ha="center", va="center", fontsize=size, color=color)

    return draw


def shown(name: str) -> str:
    """A class name, shortened for an axis."""
    return short(name, 22)


def name_size(classes: int) -> float:
    """The font size of class names, in points."""
    return 9 if classes <= ANNOTATED_CLASSES else 7


def _largest(matrix: np.ndarray, most: int) -> np.ndarray:
    """bool[C, C], the largest off-diagonal cells."""
    off = matrix - np.diag(np.diag(matrix))
    return off >= max(1, np.sort(off, axis=None)[-most])


def reliability(found: Reliability) -> Draw:
    """Reliability diagram: accuracy against confidence, and the share of predictions in each bin."""

    def draw(axes: Axes, palette: Palette) -> None:
        filled = found.counts > 0
        middles = (np.arange(BINS) + 0.5) / BINS
        share = found.counts / found.counts.sum()
        axes.bar(middles, share, 0.9 / BINS, color=palette.grid, label="share of predictions")
        axes.plot([0, 1], [0, 1], "--", color=palette.muted, linewidth=1, label="calibrated")
        axes.plot(found.confidence[filled], found.accuracy[filled], "o-", color=palette.first, label="accuracy")
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share")
        axes.legend(fontsize=8, loc="upper left")

    return draw


def against(labels: np.ndarray, predictions: np.ndarray) -> Draw:
    """Predicted against true numbers: a scatter plot, or a heat map of densities for many rows."""

    def draw(axes: Axes, palette: Palette) -> None:
        low, high = min(labels.min(), predictions.min()), max(labels.max(), predictions.max())
        pad = 0.04 * (high - low) or 1.0
        if len(labels) <= MOST_DOTS:
            axes.plot(labels, predictions, "o", color=palette.first, markersize=3, alpha=0.5, markeredgewidth=0)
        else:
            _density(labels, predictions, axes, palette.first)
        axes.plot([low, high], [low, high], "--", color=palette.muted, linewidth=1)
        axes.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), xlabel="label", ylabel="predicted")

    return draw


def _density(x: np.ndarray, y: np.ndarray, axes: Axes, color: str) -> None:
    from matplotlib.transforms import Affine2D

    counts, ends_x, ends_y = np.histogram2d(x, y, bins=48)
    shaded(counts.T / counts.max(), axes, color)
    step_x, step_y = ends_x[1] - ends_x[0], ends_y[1] - ends_y[0]
    place = Affine2D().scale(step_x, step_y).translate(ends_x[0] + step_x / 2, ends_y[0] + step_y / 2)
    for patch in axes.patches:
        patch.set_transform(place + axes.transData)


def residuals(errors: np.ndarray) -> Draw:
    """A histogram of the errors (prediction minus label)."""

    def draw(axes: Axes, palette: Palette) -> None:
        counts, ends = np.histogram(errors, bins=min(40, max(5, len(errors) // 10)))
        axes.stairs(counts, ends, fill=True, color=palette.first, alpha=0.75)
        axes.axvline(0, color=palette.ink, linewidth=1, linestyle="--")
        axes.set(xlabel="predicted less label", ylabel="rows")

    return draw


def lengths(counts: Mapping[str, Sequence[int]], ends: np.ndarray) -> Draw:
    """Histogram of lengths in tokens, for each split."""

    def draw(axes: Axes, palette: Palette) -> None:
        colors = (palette.first, palette.second, palette.third)
        for (name, of_split), color, line in zip(counts.items(), colors, ("-", "--", ":"), strict=False):
            total = max(1, sum(of_split))
            axes.stairs(np.array(of_split) / total, ends, color=color, linestyle=line, linewidth=1.4, label=name)
        axes.set(xlabel="tokens", ylabel="share of rows", xlim=(ends[0], ends[-1]))
        axes.set_ylim(bottom=0)
        if len(counts) > 1:
            axes.legend(fontsize=8)

    return draw


def score_by_length(groups: Sequence[Mapping[str, Any]], label: str) -> Draw:
    """The score of each group of rows of similar length."""

    def draw(axes: Axes, palette: Palette) -> None:
        places = range(len(groups))
        axes.plot(places, [group["score"] for group in groups], "o-", color=palette.first, markersize=4, linewidth=1.4)
        axes.set_xticks(places, [span(group) for group in groups], fontsize=8)
        axes.set(xlabel="tokens", ylabel=label)

    return draw


def span(group: Mapping[str, Any]) -> str:
    """The range of lengths of a group of rows, as a label."""
    return str(group["to"]) if group["from"] == group["to"] else f"{group['from']}-{group['to']}"
