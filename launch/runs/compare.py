"""`compare A B`: two runs on the same evaluation rows, and the rows on which they differ, with their text.

Needs the training environment, with numpy and pyarrow, and the data.
"""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Group

from job import config
from job.config import Config
from job.errors import Refused
from job.run.folder import RunFolder
from job.runtime import files
from job.runtime.contract import PROBABILITY
from launch.runs import folders, reading, run_state, tables

if TYPE_CHECKING:
    from job.resampling import LabelledPredictions
    from launch.runs.paired import Difference, McNemar

NEEDED = ("numpy", "pyarrow", "scipy")
MOST_ROWS = 20
"""Rows printed; --json has all."""
MOST_CHARACTERS = 160


@dataclass(frozen=True)
class Side:
    """One of the two runs."""

    name: str
    path: Path
    split: str
    """validation or test."""
    index: list[int]
    labels: list[Any]
    predictions: list[Any]
    classes: tuple[str, ...]
    """Empty for regression."""


@dataclass(frozen=True)
class Changed:
    """A row for which the two runs predict differently."""

    row: int
    """0-based, in the source."""
    label: Any
    a: Any
    b: Any
    text: str


@dataclass(frozen=True)
class Comparison:
    """The comparison of two runs."""

    a: Side
    b: Side
    metric: str
    difference: Difference
    mcnemar: McNemar | None
    changed: list[Changed]
    no_texts_because: str
    """Why texts are missing; empty if they are not."""


def show(one: str, other: str, by: str | None, *, as_json: bool) -> int:
    """Compare two runs and print how they differ; returns 0."""
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        raise Refused(f"compare needs {', '.join(missing)}: run it in the training environment (make setup, or "
                      "pip install -e '.[train]')")  # fmt: skip
    found = compare(folders.find(one), folders.find(other), by)
    if as_json:
        tables.write(json.dumps(files.finite(as_dict(found)), indent=2, ensure_ascii=False))
    else:
        tables.show(_shown(found))
    return 0


def compare(one: Path, other: Path, by: str | None) -> Comparison:
    """Compare the runs in two folders by the number `by`, or by their deciding number.

    Raises:
        Refused: a run has no predictions, the rows differ, or the number cannot be compared.
    """
    from launch.runs import paired

    split = _common_split(one, other)
    a, b = _side(one, split), _side(other, split)
    _refuse_other_rows(a, b)
    known = _comparable(a)
    metric = by or _deciding(one, tuple(known))
    if metric not in known:
        raise Refused(f"--by {metric} is not available for these runs: choose one of {', '.join(known)}")
    classes = _positive_last(one, other, a.classes) if metric == "f1" else a.classes
    predicted_a, predicted_b = _with_labels(a, classes), _with_labels(b, classes)
    texts, no_texts_because = _texts(a, b)
    return Comparison(
        a=a,
        b=b,
        metric=metric,
        difference=paired.difference(predicted_a, predicted_b, known[metric]),
        mcnemar=paired.mcnemar(predicted_a, predicted_b) if a.classes else None,
        changed=_changed(a, b, texts),
        no_texts_because=no_texts_because,
    )


def as_dict(found: Comparison) -> dict[str, Any]:
    """The comparison as JSON values, with every changed row."""
    difference = found.difference
    return {
        "a": str(found.a.path),
        "b": str(found.b.path),
        "split": found.a.split,
        "rows": len(found.a.index),
        "metric": found.metric,
        "value_a": difference.a,
        "value_b": difference.b,
        "difference": difference.b - difference.a,
        "interval": [difference.low, difference.high],
        "mcnemar": None if found.mcnemar is None else vars(found.mcnemar),
        "changed": [vars(row) for row in found.changed],
    }


# ---------------------------------------------------------------------------------------------------------------------
# Reading


def _common_split(one: Path, other: Path) -> str:
    for split, name in (("validation", "predictions"), ("test", "test_predictions")):
        if all(getattr(RunFolder(path), name).is_file() for path in (one, other)):
            return split
    without = next((path for path in (one, other) if not RunFolder(path).is_finished()), one)
    raise Refused(f"{without.name} has no predictions to compare: it has not finished, or predicted another split")


def _side(path: Path, split: str) -> Side:
    import pyarrow.parquet

    folder = RunFolder(path)
    file = folder.predictions if split == "validation" else folder.test_predictions
    try:
        table = pyarrow.parquet.read_table(file)
        columns = {name: table.column(name).to_pylist() for name in ("index", "label", "prediction")}
    except (OSError, KeyError, pyarrow.ArrowException) as error:
        raise Refused(f"{file} cannot be read: {' '.join(str(error).split())[:120]}") from None
    if None in columns["label"]:
        raise Refused(f"{path.name} was predicted on data without labels: it cannot be compared")
    classes = tuple(name.removeprefix(PROBABILITY) for name in table.column_names if name.startswith(PROBABILITY))
    return Side(path.name, path, split, columns["index"], columns["label"], columns["prediction"], classes)


def _refuse_other_rows(a: Side, b: Side) -> None:
    if not a.index and not b.index:
        raise Refused(f"{a.name} and {b.name} were evaluated on no rows: there is nothing to compare")
    if a.index != b.index:
        common = len(set(a.index) & set(b.index))
        raise Refused(
            f"{a.name} and {b.name} were evaluated on different rows ({len(a.index)} and {len(b.index)}, {common} in "
            "common): only runs on the same rows can be compared"
        )
    if a.labels != b.labels or set(a.classes) != set(b.classes):
        raise Refused(f"{a.name} and {b.name} were evaluated with different labels: only runs on the same data can be "
                      "compared")  # fmt: skip


def _deciding(path: Path, known: Sequence[str]) -> str:
    """The number that decided which model of the run is the best, if it can be compared, else the first that can."""
    folder = RunFolder(path)
    number = run_state.deciding(folder, reading.read_settings(folder.config)).number
    return number if number in known else known[0]


def _positive_last(one: Path, other: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """The two classes, with the positive class of f1 last, which is the default order."""
    positive = {
        reading.read_settings(RunFolder(path).config).get("positive_label") or classes[1] for path in (one, other)
    }
    if len(positive) > 1 or not positive <= set(classes):
        raise Refused("--by f1: the runs have different positive labels; compare them by f1_macro")
    return tuple(sorted(classes, key=lambda name: name in positive))


def _comparable(side: Side) -> dict[str, str]:
    """The numbers by which runs of this kind of task can be compared -> their names in resampling.METRICS."""
    from job import resampling

    if not side.classes:
        return resampling.NUMBERS
    if side.labels and isinstance(side.labels[0], list):
        return resampling.SEVERAL_LABELS
    return resampling.TWO_CLASSES if len(side.classes) == 2 else resampling.ONE_LABEL


def _with_labels(side: Side, classes: Sequence[str]) -> LabelledPredictions:
    import numpy as np

    from job.resampling import LabelledPredictions, indicators

    if not classes:
        return LabelledPredictions(np.array(side.labels, np.float64), np.array(side.predictions, np.float64))
    try:
        return LabelledPredictions(indicators(side.labels, classes), indicators(side.predictions, classes))
    except KeyError as error:
        raise Refused(f"{side.name} has predictions or labels {error} for which there is no column of probabilities: "
                      "they cannot be compared") from None  # fmt: skip


def _texts(a: Side, b: Side) -> tuple[dict[int, str], str]:
    """Row -> text of the changed rows; and why they are missing, if they are.

    Raises:
        Refused: the two runs read different texts under the same row numbers.
    """
    rows = [row for row, one, other in zip(a.index, a.predictions, b.predictions, strict=True) if one != other]
    try:
        one, other = (config.load_recipe(str(RunFolder(side.path).config)) for side in (a, b))
        texts = _read_texts(one, a.split, rows)
        others = texts if one.data == other.data else _read_texts(other, b.split, rows)
    except Refused as error:
        return {}, str(error)
    if texts != others:
        raise Refused(f"{a.name} and {b.name} read different texts under the same row numbers: only runs on the same "
                      "data can be compared")  # fmt: skip
    return texts, ""


def _read_texts(settings: Config, split: str, rows: Sequence[int]) -> dict[int, str]:
    """Row -> text, read as the job does. An evaluation set split off from the training data uses its row numbers."""
    if importlib.util.find_spec("datasets") is None:
        raise Refused("the package `datasets` is not installed")
    from job.data import sources

    source = sources.read(settings.data, (split,)).get(split) or sources.read(settings.data, ("train",)).get("train")
    if source is None:
        raise Refused("config.yaml names no data")
    if rows and max(rows) >= len(source.table):
        raise Refused(f"{source.origin} has fewer rows now than when the runs were evaluated")
    selected = source.table.select(rows) if rows else []
    return {
        row: " | ".join(str(values[name]) for name in source.columns.text)
        for row, values in zip(rows, selected, strict=True)
    }


def _changed(a: Side, b: Side, texts: dict[int, str]) -> list[Changed]:
    """The changed rows: first those that only A predicts correctly, then those that only B does, then the rest."""
    changed = [
        Changed(row, label, one, other, texts.get(row, ""))
        for row, label, one, other in zip(a.index, a.labels, a.predictions, b.predictions, strict=True)
        if one != other
    ]
    return sorted(changed, key=lambda row: (row.a != row.label, row.b != row.label))


# ---------------------------------------------------------------------------------------------------------------------
# Printing


def _shown(found: Comparison) -> Group:
    difference, test = found.difference, found.mcnemar
    facts = {
        "A": f"{found.a.path}  {found.metric} {difference.a:.4f}",
        "B": f"{found.b.path}  {found.metric} {difference.b:.4f}",
        "rows": f"{len(found.a.index):,} of the {found.a.split} set, the same in both",
        "B - A": f"{difference.b - difference.a:+.4f}, 95 % interval {difference.low:+.4f} to {difference.high:+.4f} "
        "(paired bootstrap)",
        "McNemar": "" if test is None else f"p = {test.p:.4g} (exact); rows correct only in A: {test.only_a}, "
        f"only in B: {test.only_b}",
    }  # fmt: skip
    rows = [[str(row.row), *map(_cell, (row.label, row.a, row.b)), _shortened(row.text)] for row in found.changed]
    changed = f"\nrows with a different prediction: {len(found.changed)}"
    parts: list[Any] = [tables.page(facts), changed]
    if rows:
        parts.append(tables.table(["row", "label", "A", "B", "text"], rows[:MOST_ROWS], right=("row",)))
    if len(rows) > MOST_ROWS:
        parts.append(f"and {len(rows) - MOST_ROWS} more; --json prints all")
    if found.no_texts_because and rows:
        parts.append(f"texts not available: {found.no_texts_because}")
    return Group(*parts)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value) or "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 3]}..."
