"""A run as its files show it, at any moment: each may be missing, and the last line of metrics.jsonl half-written."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from job.config.tasks import KINDS, Task
from job.report.html import calibration, label_errors, mistakes, predictions, recorded
from job.report.html.calibration import Reliability
from job.report.html.predictions import Predicted
from job.run.folder import RunFolder

YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class RunFiles:
    """What is in a run folder; a file that is missing or cannot be read is empty.

    Attributes:
        folder: of the run.
        settings: config.yaml.
        manifest: manifest.json.
        status: status.json.
        results: results.json; empty while the run is going on.
        data: report/data.json.
        rows: report/rows.json.
        records: the lines of metrics.jsonl.
    """

    folder: RunFolder
    settings: Mapping[str, Any]
    manifest: Mapping[str, Any]
    status: Mapping[str, Any]
    results: Mapping[str, Any]
    data: Mapping[str, Any]
    rows: Mapping[str, Any]
    records: list[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return self.folder.path.resolve().name

    @property
    def task(self) -> Task | None:
        kind = KINDS.get(self.data.get("problem_type", ""))
        return None if kind is None else Task(kind, tuple(self.data["classes"]))

    @property
    def split(self) -> str | None:
        """The split that the report is about: validation, else test; None while neither has been predicted."""
        if "eval" in self.results and self.folder.predictions.is_file():
            return "validation"
        return "test" if "test" in self.results and self.folder.test_predictions.is_file() else None

    @property
    def scores(self) -> Mapping[str, Any]:
        """What results.json says of the split that the report is about."""
        return self.results.get({"validation": "eval", "test": "test"}.get(self.split or "", ""), {})

    @cached_property
    def predicted(self) -> Predicted | None:
        """The predictions of `split`."""
        if self.split is None:
            return None
        folder = self.folder
        return predictions.read(folder.predictions if self.split == "validation" else folder.test_predictions)

    @property
    def labelled(self) -> Predicted | None:
        """The same, where there are labels to compare them with."""
        return None if self.predicted is None or self.predicted.labels is None else self.predicted

    @cached_property
    def reliability(self) -> Reliability:
        """Of the labelled predictions, which have classes."""
        assert self.labelled is not None
        return calibration.of(self.labelled)

    @cached_property
    def label_errors(self) -> list[tuple[int, int, float]]:
        """Those that are probable among the labelled predictions."""
        assert self.labelled is not None
        return label_errors.of(self.labelled)

    @cached_property
    def confusion_matrix(self) -> np.ndarray:
        """Of the labelled predictions, which have one label a row."""
        assert self.labelled is not None
        return mistakes.confusion_matrix(self.labelled)

    def of_split(self, split: str) -> list[Mapping[str, Any]]:
        """The records of metrics.jsonl of "train" or "eval"."""
        return [record for record in self.records if record.get("split") == split]


def read(path: Path) -> RunFiles:
    """What is in the run folder `path`."""
    folder = RunFolder(path)
    return RunFiles(
        folder=folder,
        settings=_settings(folder.config),
        manifest=_json(folder.manifest),
        status=_json(folder.status),
        results=_json(folder.results),
        data=_json(recorded.data_file(folder)),
        rows=_json(recorded.rows_file(folder)),
        records=_records(folder.metrics),
    )


def _json(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    return {}


def _settings(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=YAML)
        return value if isinstance(value, dict) else {}
    return {}


def _records(path: Path) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get("step"), int):
                    found.append(record)
    return found
