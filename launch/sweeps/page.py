"""report.html of a sweep, styled like a run's report: the runs, best first, and the score over each setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.report.html import drawing, page
from job.report.html.blocks import Paragraph, Picture, Section, Table, count, short
from job.runtime import files
from launch.runs import tables
from launch.runs.results import Row, cells, differing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "report.html"
MAX_LABELS = 12
"""Maximum number of non-numeric values that are written below the axis."""
MIN_LOG_RATIO = 10
"""Minimum ratio of the largest to the smallest value for a logarithmic axis."""


def write(folder: Path, rows: Sequence[Row], importances: Mapping[str, float]) -> Path:
    """Write the page of the finished runs, best first; returns its path."""
    files.write_text(folder / NAME, render(folder.name, rows, importances))
    return folder / NAME


def render(name: str, rows: Sequence[Row], importances: Mapping[str, float]) -> str:
    """The page as HTML."""
    return page.document(name, "Sweep report", sections(rows, importances), again=f"muster results {name}")


def sections(rows: Sequence[Row], importances: Mapping[str, float]) -> list[Section]:
    """The verdict with all runs, the importance of each setting, and plots of the score over each setting."""
    made = [Section("verdict", "Verdict", [Paragraph(_verdict(rows), lead=True), _table(rows)])]
    if importances:
        shares = [[name, f"{share:.2f}"] for name, share in importances.items()]
        table = Table("Share of each setting in the variance of the score (fANOVA)", ["setting", "share"], shares,
                      numbers=frozenset({1}))  # fmt: skip
        made.append(Section("importance", "Importance", [table]))
    names = differing([row.runs[0].settings for row in rows])
    if names:
        pictures = [_picture(number, setting, rows) for number, setting in enumerate(names)]
        made.append(Section("settings", "Score by setting", pictures))
    return made


def _verdict(rows: Sequence[Row]) -> str:
    best, runs = rows[0], sum(len(row.runs) for row in rows)
    names = differing([row.runs[0].settings for row in rows])
    settings = ", ".join(f"{name} {_shown(best.runs[0].settings.get(name))}" for name in names)
    spread = f" ± {best.deviation:.4f} over {count(len(best.runs), 'seed')}" if best.deviation is not None else ""
    with_settings = f" with {settings}" if settings else ""
    head = f"The best of {count(runs, 'finished run')} has {best.by} {best.mean:.4f}"
    return f"{head}{spread}{with_settings}: run {best.runs[0].name}."


def _table(rows: Sequence[Row]) -> Table:
    columns, body = cells(rows, rows[0].by, rounded=True)
    numbers = frozenset(number for number, name in enumerate(columns) if name in (rows[0].by, "std", "runs"))
    return Table("Runs, best first", columns, body, numbers=numbers)


def _picture(number: int, setting: str, rows: Sequence[Row]) -> Picture:
    """A plot of the score over one setting, with a dot for each run."""
    by = rows[0].by
    dots = [(row.runs[0].settings.get(setting), run.scores[by]) for row in rows for run in row.runs]
    distinct: dict[str, Any] = {repr(value): value for value, _ in dots}  # a value may be a mapping
    names, values = list(distinct), list(distinct.values())
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    labels = [short(tables.setting(value), 20) for value in values]

    def draw(axes: Axes, palette: drawing.Palette) -> None:
        at: list[Any] = [value if numeric else names.index(repr(value)) for value, _ in dots]
        axes.plot(at, [score for _, score in dots], "o", color=palette.first, alpha=0.7)
        if numeric and min(values) > 0 and max(values) >= MIN_LOG_RATIO * min(values):
            drawing.make_logarithmic(axes, "x")
        elif not numeric:
            axes.set_xticks(range(len(values))[:MAX_LABELS], labels[:MAX_LABELS], rotation=20, ha="right")
        axes.set_xlabel(setting)
        axes.set_ylabel(by)

    best = rows[0].runs[0]
    described = f"{count(len(dots), 'run')}; the best has {_shown(best.settings.get(setting))}."
    return Picture(
        f"setting{number}", setting, described, drawing.svg(f"setting{number}", draw, names=0.0 if numeric else 1.0)
    )


def _shown(value: Any) -> str:
    return short(tables.setting(value))
