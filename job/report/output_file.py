"""Writes --output_file: every input row of the test set with its prediction, as csv, jsonl or parquet.

The file is made from the input files and the table of predictions. So it can be written again for a finished run, and
does not depend on the number of processes.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from job.data.inputs import Inputs, as_text
from job.errors import Refused
from job.runtime import files
from job.runtime.contract import PROBABILITY

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class NewColumns:
    """The predictions for n rows, as columns to add to the input.

    Attributes:
        rows: int64[n], ascending, row numbers in the input, from 0.
        columns: "prediction", "score", "top_1", "top_1_score", ... -> n values: texts, numbers or lists of them.
    """

    rows: np.ndarray
    columns: dict[str, list[Any]]


def write(path: Path, inputs: Inputs, predictions: Path, top_k: int | None) -> None:
    """Write each predicted row with its prediction, in the format given by the file name.

    Args:
        predictions: the run's test_predictions.parquet.
        top_k: write this many of the most probable classes with their scores; None for none.

    Raises:
        Refused: the file cannot be written, or the input has changed.
    """
    import pyarrow.parquet as pq

    new = _new_columns(pq.read_table(predictions), top_k)
    names = _free_names(inputs.columns(), new.columns)
    write_rows = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}[path.suffix.lower()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.publish(path, lambda temporary: write_rows(temporary, inputs, new, names))
    except OSError as error:
        if error.errno in files.DISK_ERRORS:
            raise
        raise Refused(f"--output_file {path} cannot be written: {error.strerror or error}") from None


def _new_columns(predictions: pa.Table, top_k: int | None) -> NewColumns:
    """The columns to add, from the run's table of predictions."""
    classes = [name for name in predictions.column_names if name.startswith(PROBABILITY)]
    chosen = predictions.column("prediction").to_pylist()
    columns: dict[str, list[Any]] = {"prediction": chosen}
    if classes:
        names = [name.removeprefix(PROBABILITY) for name in classes]
        scores = np.stack([predictions.column(name).to_numpy() for name in classes], axis=1)
        columns |= {"score": _scores(chosen, names, scores), **_best(chosen, names, scores, top_k or 0)}
    return NewColumns(predictions.column("index").to_numpy(), columns)


def _scores(chosen: Sequence[Any], names: Sequence[str], scores: np.ndarray) -> list[Any]:
    """The probability of each row's prediction; a list for rows with several labels."""
    number = {name: i for i, name in enumerate(names)}
    if any(isinstance(label, list) for label in chosen):
        return [[_shortest(row[number[name]]) for name in label] for label, row in zip(chosen, scores, strict=True)]
    return [_shortest(row[number[label]]) for label, row in zip(chosen, scores, strict=True)]


def _best(chosen: Sequence[Any], names: Sequence[str], scores: np.ndarray, top_k: int) -> dict[str, list[Any]]:
    """The `top_k` most probable classes and their scores; ties: predicted classes first, then in class order."""
    predicted = np.array([[name in label if isinstance(label, list) else name == label for name in names]
                          for label in chosen]) if top_k else np.zeros_like(scores)  # fmt: skip
    order = np.lexsort((~predicted.astype(bool), -scores), axis=1)
    columns = {}
    for place in range(min(top_k, len(names))):
        best = order[:, place]
        columns[f"top_{place + 1}"] = [names[i] for i in best]
        columns[f"top_{place + 1}_score"] = [_shortest(row[i]) for row, i in zip(scores, best, strict=True)]
    return columns


def _shortest(value: np.float32) -> float:
    """A float32 as the shortest float that rounds to it: 0.1, not 0.10000000149011612."""
    return float(str(value))


def _free_names(taken: Sequence[str], wanted: Sequence[str] | dict[str, Any]) -> dict[str, str]:
    """Names for the new columns: `prediction`, or `prediction_1` if the input has a column of that name."""
    used, names = set(taken), {}
    for name in wanted:
        candidates = (name if number == 0 else f"{name}_{number}" for number in range(len(used) + 1))
        names[name] = next(candidate for candidate in candidates if candidate not in used)
        used.add(names[name])
    return names


def _predicted_rows(inputs: Inputs, new: NewColumns, names: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Each predicted row with the new columns."""
    place = 0
    for number, row in enumerate(inputs.rows()):
        if place < len(new.rows) and number == new.rows[place]:
            yield {**row, **{names[name]: values[place] for name, values in new.columns.items()}}
            place += 1
    if place < len(new.rows):
        raise RuntimeError(f"{len(new.rows)} rows were predicted and {place} of them are in the input")


def _write_csv(path: Path, inputs: Inputs, new: NewColumns, names: dict[str, str]) -> None:
    columns = [*inputs.columns(), *names.values()]
    with open(path, "w", encoding="utf-8", newline="") as file:
        file.write(_csv_line(columns))
        for row in _predicted_rows(inputs, new, names):
            file.write(_csv_line([as_text(row.get(name)) for name in columns]))


def _csv_line(cells: Sequence[str]) -> str:
    """A csv line that ends with LF. It is written with CRLF first, so that the csv module quotes both CR and LF."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(cells)
    return line.getvalue().removesuffix("\r\n") + "\n"


def _write_jsonl(path: Path, inputs: Inputs, new: NewColumns, names: dict[str, str]) -> None:
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        for row in _predicted_rows(inputs, new, names):
            file.write(json.dumps(row, ensure_ascii=False, default=str) + "\n")


def _write_parquet(path: Path, inputs: Inputs, new: NewColumns, names: dict[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    added = pa.table({names[name]: pa.array(values) for name, values in new.columns.items()})
    writer, start, place = None, 0, 0
    try:
        for table in inputs.tables():
            end = place + int(np.searchsorted(new.rows[place:], start + len(table)))
            rows = table.take(new.rows[place:end] - start)
            for name in added.column_names:
                rows = rows.append_column(name, added.column(name).slice(place, end - place))
            writer = writer or pq.ParquetWriter(path, rows.schema)
            writer.write_table(rows)
            start, place = start + len(table), end
    finally:
        if writer is not None:
            writer.close()
    if place < len(new.rows):
        raise RuntimeError(f"{len(new.rows)} rows were predicted and {place} of them are in the input")
