"""Reads the files of a run at any time: each may be missing, and metrics.jsonl may end with an incomplete line."""

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
from job.runtime import files

YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class RunFiles:
    """The content of a run folder; files that are missing or cannot be read count as empty.

    Attributes:
        folder: the run folder.
        settings: content of config.yaml.
        manifest: content of manifest.json.
        status: content of status.json.
        results: content of results.json; empty while the run is active.
        data: content of report/data.json.
        rows: content of report/rows.json.
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
        """The split that the report describes: validation, else test; None before one of them has been predicted."""
        if "eval" in self.results and self.folder.predictions.is_file():
            return "validation"
        return "test" if "test" in self.results and self.folder.test_predictions.is_file() else None

    @property
    def scores(self) -> Mapping[str, Any]:
        """The scores of `split` in results.json."""
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
        """The predictions of `split` if it has labels, else None."""
        return None if self.predicted is None or self.predicted.labels is None else self.predicted

    @cached_property
    def reliability(self) -> Reliability:
        """The reliability of the labelled predictions; not for regression."""
        assert self.labelled is not None
        return calibration.of(self.labelled)

    @cached_property
    def label_errors(self) -> list[tuple[int, int, float]]:
        """The probable label errors among the labelled predictions."""
        assert self.labelled is not None
        return label_errors.of(self.labelled)

    @cached_property
    def confusion_matrix(self) -> np.ndarray:
        """The confusion matrix of the labelled predictions; only for tasks with one label per row."""
        assert self.labelled is not None
        return mistakes.confusion_matrix(self.labelled)

    def of_split(self, split: str) -> list[Mapping[str, Any]]:
        """The records in metrics.jsonl for split "train" or "eval"."""
        return [record for record in self.records if record.get("split") == split]


def read(path: Path) -> RunFiles:
    """Read the run folder `path`."""
    folder = RunFolder(path)
    return RunFiles(
        folder=folder,
        settings=_settings(folder.config),
        manifest=files.read_json(folder.manifest),
        status=files.read_json(folder.status),
        results=files.read_json(folder.results),
        data=files.read_json(folder.data),
        rows=files.read_json(recorded.rows_file(folder)),
        records=_records(folder.metrics),
    )


def _settings(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        value = yaml.load(path.read_text(encoding="utf-8"), Loader=YAML)
        return value if isinstance(value, dict) else {}
    return {}


def _records(path: Path) -> list[Mapping[str, Any]]:
    records: list[Mapping[str, Any]] = []
    with contextlib.suppress(OSError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict) and isinstance(record.get("step"), int):
                    records.append(record)
    return records
