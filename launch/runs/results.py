"""`results`: the finished runs of a folder, best first; runs that differ only in their seed are one row."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job import config
from job.config import metrics
from job.config.metrics import Deciding
from job.errors import Refused
from job.run.folder import RunFolder
from job.runtime import files
from launch.runs import folders, reading, run_state, tables

DATA = "data"
"""Column for the fingerprint of the data, if the runs used different data."""
RESULT_SETTINGS = tuple(name for name, (_, field) in config.fields().items() if field.metadata["changes_result"])


@dataclass(frozen=True)
class Finished:
    """A run with results."""

    name: str
    scores: Mapping[str, float]
    """Scores of the evaluation, else of the test set."""
    settings: Mapping[str, Any]
    """Settings that change the result, and the fingerprint of the data."""
    decided_by: Deciding


@dataclass(frozen=True)
class Row:
    """Runs with the same settings except the seed."""

    runs: tuple[Finished, ...]
    """The best one first."""
    by: str

    @property
    def values(self) -> list[float]:
        return [run.scores[self.by] for run in self.runs]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def deviation(self) -> float | None:
        """The sample standard deviation; None for a single run."""
        return statistics.stdev(self.values) if len(self.runs) > 1 else None

    @property
    def seeds(self) -> str:
        return " ".join(
            sorted((str(run.settings.get("seed")) for run in self.runs), key=lambda seed: (len(seed), seed))
        )


def show(folder: Path, by: str | None, form: str) -> list[Row]:
    """Print the finished runs in `folder`, sorted by the score `by`; returns the rows of the table."""
    paths = folders.elements(folder) if folders.is_sweep(folder) else folders.below(folder)
    runs = [run for path in paths if (run := read(path))]
    if not runs and folders.is_run(folder):
        raise Refused(f"{folder} is a run: give the folder that it is in; `status {folder}` shows the run")
    if not runs:
        raise Refused(f"no finished runs in {folder}/: `status` shows their progress")
    by = by or _common_metric(runs)
    missing = [run.name for run in runs if by not in run.scores]
    if len(missing) == len(runs):
        available = dict.fromkeys(name for run in runs for name in run.scores)
        if not available:
            raise Refused(f"the finished runs in {folder}/ have no scores: their results.json holds no number")
        raise Refused(f"--by {by} is not among the scores: choose one of {', '.join(available)}")
    rows = grouped([run for run in runs if by in run.scores], by)
    columns, body = cells(rows, by, rounded=form == "table")
    if form == "json":
        tables.write(json.dumps([as_dict(row) for row in rows], indent=2, ensure_ascii=False))
    elif form == "csv":
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([columns, *body])
        tables.write(text.getvalue().rstrip("\n"))
    else:
        tables.show(tables.table(columns, body, right=(by, "std", "runs")))
    if missing:
        print(f"runs without {by}: {', '.join(missing)}", file=sys.stderr)
    return rows


def read(path: Path) -> Finished | None:
    """The results in a run folder; None if there are none yet."""
    folder = RunFolder(path)
    results = files.read_json(folder.results)
    scored = next((results[name] for name in ("eval", "test") if isinstance(results.get(name), Mapping)), None)
    if scored is None:
        return None
    all_settings = reading.read_settings(folder.config)
    settings = {name: all_settings.get(name) for name in RESULT_SETTINGS if name in all_settings}
    settings[DATA] = str(files.read_json(folder.manifest).get("dataset_fingerprint"))[:8]
    numbers = {k: v for k, raw in scored.items() if k != "examples" and (v := reading.number(raw)) is not None}
    return Finished(path.name, numbers, settings, run_state.deciding(folder, all_settings))


def grouped(runs: Sequence[Finished], by: str) -> list[Row]:
    """The rows, best first."""
    groups: dict[str, list[Finished]] = defaultdict(list)
    for run in runs:
        same = {name: value for name, value in run.settings.items() if name != "seed"}
        groups[repr(same) if "seed" in run.settings else run.name].append(run)  # without config.yaml: its own group
    sign = _sign(runs, by)
    rows = [Row(tuple(sorted(group, key=lambda run: sign * run.scores[by])), by) for group in groups.values()]
    return sorted(rows, key=lambda row: sign * row.mean if math.isfinite(row.mean) else math.inf)


def cells(rows: Sequence[Row], by: str, *, rounded: bool) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table, with only those settings in which the rows differ."""
    names = differing([row.runs[0].settings for row in rows])
    several = any(len(row.runs) > 1 for row in rows)
    columns = ["run", by, *(["std", "runs", "seeds"] if several else ["seed"]), *names]

    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.4f}" if rounded else repr(value)

    def setting(value: Any) -> str:
        return tables.setting(value) if rounded else "" if value is None else str(value)

    body = []
    for row in rows:
        spread = [number(row.deviation), str(len(row.runs))] if several else []
        others = f" and {len(row.runs) - 1} more" if rounded and len(row.runs) > 1 else ""
        values = [setting(row.runs[0].settings.get(name)) for name in names]
        body.append([f"{row.runs[0].name}{others}", number(row.mean), *spread, row.seeds, *values])
    return columns, body


def as_dict(row: Row) -> dict[str, Any]:
    """A row as JSON values."""
    settings = {name: value for name, value in row.runs[0].settings.items() if name != "seed"}
    runs = [{"run": run.name, "seed": run.settings.get("seed"), "scores": dict(run.scores)} for run in row.runs]
    return {"by": row.by, "mean": row.mean, "std": row.deviation, "runs": runs, "settings": settings}


def differing(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the settings, except the seed, that are not the same in all."""
    names = [name for name in (*RESULT_SETTINGS, DATA) if name != "seed"]
    return [name for name in names if len({repr(values.get(name)) for values in settings}) > 1]


def _common_metric(runs: Sequence[Finished]) -> str:
    """The deciding number of the runs, if it is the same for all."""
    names = sorted({run.decided_by.number for run in runs})
    if len(names) > 1:
        raise Refused(f"the runs have different deciding metrics ({', '.join(names)}): choose one with --by")
    return names[0]


def _sign(runs: Sequence[Finished], by: str) -> int:
    """1 if lower is better, else -1."""
    directions = {run.decided_by.lower_is_better for run in runs if run.decided_by.number == by}
    lower = directions.pop() if len(directions) == 1 else metrics.lower_is_better(by)
    return 1 if lower else -1
