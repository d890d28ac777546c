"""Writes the files in report/ that need the data, which only the job has loaded. They are small for data of any size.

data.json is written at the start: task, classes, the statistics of job.data.statistics, and lengths. rows.json is
written with the predictions: the texts of the few dozen rows that the report shows, truncated, and the score by length.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from job.report.html import label_errors, lengths, mistakes, predictions
from job.report.html.predictions import Predicted
from job.run.folder import RunFolder
from job.runtime import files
from job.runtime.console import log

if TYPE_CHECKING:
    from job.data.dataset import Data, Split

SHOWN_MISTAKES = 25
SHOWN_LABEL_ERRORS = 25
SHOWN_CHARACTERS = 600
"""Longer texts are truncated and end with an ellipsis."""


def rows_file(folder: RunFolder) -> Path:
    return folder.report_files / "rows.json"


def write_data(folder: RunFolder, data: Data) -> None:
    """Write data.json: statistics of the data, before training."""
    splits = {"train": data.train, "validation": data.evaluation, "test": data.test}
    longest = max(
        (int(split.lengths.max()) for split in splits.values() if split is not None and len(split)), default=1
    )
    folder.report_files.mkdir(exist_ok=True)
    known = files.finite(
        {
            "problem_type": data.task.kind.problem_type,
            "classes": list(data.task.names),
            "text_columns": list(data.text_columns),
            "label_column": data.label_column,
            "evaluation_cut_from_training": data.cut,
            "description": data.description,
            "longest": longest,
            "lengths": {
                name: lengths.histogram(split.lengths, longest) for name, split in splits.items() if split is not None
            },
        }
    )
    files.write_json(folder.data, known)


def write_rows(folder: RunFolder, data: Data) -> None:
    """Write rows.json, for the rows that the report shows; the tables of predictions must exist.

    A failure is logged in one line; the report is then written without these rows.

    Raises:
        OSError: the folder cannot be written.
    """
    try:
        _write_rows(folder, data)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  a finished training must not fail here
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        log.warning(f"the rows that report.html shows could not be recorded ({reason}); the run continues without them")


def _write_rows(folder: RunFolder, data: Data) -> None:
    splits = {"validation": (data.evaluation, folder.predictions), "test": (data.test, folder.test_predictions)}
    for name, (split, path) in splits.items():
        if split is None or not path.is_file():
            continue
        predicted = predictions.read(path)
        if predicted.labels is not None:
            folder.report_files.mkdir(exist_ok=True)
            files.write_json(rows_file(folder), files.finite({"split": name, **_describe_rows(predicted, split)}))
            return


def _describe_rows(predicted: Predicted, split: Split) -> dict[str, Any]:
    return {
        "score_by_length": lengths.score_by_length(predicted, split.lengths),
        "texts": {str(split.row_ids[row]): _texts(split, row) for row in shown_rows(predicted)},
    }


def shown_rows(predicted: Predicted) -> list[int]:
    """The row numbers in the split of the rows that the report shows with their text, ascending."""
    wrong = mistakes.most_confident(predicted, SHOWN_MISTAKES)
    errors = [row for row, _, _ in label_errors.of(predicted)[:SHOWN_LABEL_ERRORS]]
    return np.unique([*wrong.tolist(), *errors]).astype(int).tolist()


def _texts(split: Split, row: int) -> list[str]:
    return [_cut(column[int(split.row_ids[row])].as_py() or "") for column in split.texts]


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]} …"
