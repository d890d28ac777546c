"""Label columns as the sources read them, the task they set, and what they are rejected with."""

import json
from typing import Any

import pytest
from datasets import Dataset, Features, Value

from job.config.tasks import MULTI_LABEL, SINGLE_LABEL, Kind, Task
from job.data.columns import Columns
from job.data.labels import column as label_column
from job.data.labels import encoding, recognition
from job.data.labels.reading import Reading
from job.data.sources import Source
from job.errors import Refused

SPLIT = "train.csv"


def source(values: list[Any], feature: Any = None, origin: str = SPLIT, to_predict: bool = False) -> Source:
    """A table whose column has a type, as parquet and data sets have."""
    features = None if feature is None else Features({"label": feature})
    table = Dataset.from_dict({"label": values}, features=features)
    return of_table(table, label_column.from_table(table, "label"), origin, to_predict)


def of_table(table: Dataset, column: label_column.LabelColumn, origin: str = SPLIT, to_predict: bool = False) -> Source:
    return Source(table, Columns(("text",), "label"), origin, "fingerprint", column, to_predict)


def from_json(values: list[Any], origin: str = SPLIT, to_predict: bool = False) -> Source:
    """As jsonl files are read: each label as JSON text."""
    table = Dataset.from_dict(
        {"label": [json.dumps(value) for value in values]}, features=Features({"label": Value("string")})
    )
    return of_table(table, label_column.from_table(table, "label", as_json=True), origin, to_predict)


def from_csv(values: list[str], origin: str = SPLIT, to_predict: bool = False) -> Source:
    """As csv files are read: all is text."""
    table = from_json(values).table
    return of_table(table, label_column.from_table(table, "label", as_json=True, untyped=True), origin, to_predict)


def task_of(train: Source, of_model: Task | None = None, kind: Kind | None = None) -> Task:
    return recognition.read_task(train, of_model, kind).task


def encode(read: Source, task: Task, indicators: tuple[str, ...] = ()) -> Any:
    return encoding.encode(read, Reading(task, indicators))


def encoded(train: Source, kind: Kind | None = None) -> list[Any]:
    """The labels of training data, read without a model or flag."""
    return encoding.encode(train, recognition.read_task(train, None, kind)).tolist()


def classes(*names: str) -> Task:
    return Task(SINGLE_LABEL, names)


def several(*names: str) -> Task:
    return Task(MULTI_LABEL, names)


def refusal(values: Source, kind: Kind | None = None) -> str:
    with pytest.raises(Refused) as caught:
        encoding.encode(values, recognition.read_task(values, None, kind))
    return str(caught.value)


def refusal_of(values: Source, task: Task, indicators: tuple[str, ...] = ()) -> str:
    with pytest.raises(Refused) as caught:
        encode(values, task, indicators)
    return str(caught.value)
