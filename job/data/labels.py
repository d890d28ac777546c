"""Labels of any type -> what a model is trained on, in an order that does not depend on which row comes first.

The kind of task follows from the values: whole numbers and text are classes, floats are regression, lists are several
labels a row. Class order: the data set's own ClassLabel names; else whole numbers by value ("10" after "2", also where
a csv holds them as text); else text in code point order. A model that already has exactly these names keeps its order.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from job.config.tasks import MULTI_LABEL, REGRESSION, SCORE, SINGLE_LABEL, Task
from job.data.sources import Source
from job.errors import Refused

DECIMAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
"""3.5, 4 and -1e3; but not 05, nan or 1_000, which float() takes too."""
NO_LABEL = -1
"""What a ClassLabel column holds where the label is withheld, as in GLUE's test sets."""


def task_of(train: Source, of_model: Task | None = None) -> Task:
    """The task that the training data sets.

    Args:
        train: the source that defines the classes.
        of_model: what the pretrained model was fine-tuned for; None if it was not.

    Raises:
        Refused: fewer than two classes, or a value that is no label.
    """
    values = _distinct(train)
    declared = _declared(train)
    if any(isinstance(value, list) for value in values):
        inner = {_plain(v, train) for value in values for v in (value if isinstance(value, list) else [value])}
        task = Task(MULTI_LABEL, declared or tuple(str(v) for v in _ordered(list(inner))))
    elif not declared and _are_numbers(values):
        return Task(REGRESSION, (SCORE,))
    else:
        task = Task(SINGLE_LABEL, declared or tuple(str(v) for v in _ordered([_plain(v, train) for v in values])))
    if len(task.names) < 2:
        only = task.names[0] if task.names else "none"
        raise Refused(f"{train.origin}: column {train.columns.label} has one class only ({only}): two are needed")
    same = of_model is not None and of_model.kind == task.kind and set(of_model.names) == set(task.names)
    return of_model if same and of_model else task


def encode(source: Source, task: Task) -> np.ndarray:
    """The label of every row of `source`: int64[n] classes, float64[n] numbers, or int8[n, C] of 0 and 1.

    Raises:
        Refused: a label that the task does not have, or none where one is needed.
    """
    values, codes = _dictionary(source)
    if task.kind == REGRESSION:
        return np.array([_number(value, source) for value in values], dtype=np.float64)[codes]
    number = {name: i for i, name in enumerate(task.names)}
    if task.kind == SINGLE_LABEL:
        return np.array([_class(value, number, source) for value in values], dtype=np.int64)[codes]
    rows = np.zeros((len(values), len(number)), dtype=np.int8)
    for row, value in zip(rows, values, strict=True):
        for name in _listed(value, source):
            row[_class(name, number, source)] = 1
    return rows[codes]


def is_unlabelled(source: Source) -> bool:
    """Whether a test set has no labels: no such column, or only nulls or GLUE's -1 in it."""
    if source.columns.label is None:
        return True
    values = (json.loads(v) if source.json_labels and isinstance(v, str) else v for v in _unique(source))
    return all(value in (None, NO_LABEL, str(NO_LABEL), "") for value in values)


def _distinct(source: Source) -> list[Any]:
    """The different values of the label column, as Python values; lists stay lists."""
    values = [json.loads(v) if source.json_labels and v is not None else v for v in _unique(source)]
    declared = _declared(source)
    return [_named(value, declared, source) for value in values]


def _unique(source: Source) -> list[Any]:
    column = source.table.data.column(source.columns.label)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        seen = {json.dumps(value) for batch in column.chunks for value in batch.to_pylist()}
        return [json.loads(value) for value in sorted(seen)]
    return column.unique().to_pylist()


def _dictionary(source: Source) -> tuple[list[Any], np.ndarray]:
    """(different values, named; int32[n] which of them each row has)."""
    column = source.table.data.column(source.columns.label)
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = pa.chunked_array(
            [pa.array([json.dumps(v) for v in c.to_pylist()], pa.string()) for c in column.chunks]
        )
        raw, codes = _encoded(column, source)
        values = [json.loads(value) for value in raw]
    else:
        raw, codes = _encoded(column, source)
        values = [json.loads(value) if source.json_labels else value for value in raw]
    declared = _declared(source)
    return [_named(value, declared, source) for value in values], codes


def _encoded(column: pa.ChunkedArray, source: Source) -> tuple[list[Any], np.ndarray]:
    if column.null_count:
        raise _no_label(source)
    encoded = column.dictionary_encode().unify_dictionaries()  # chunk by chunk: the values themselves are not copied
    values = encoded.chunk(0).dictionary.to_pylist() if encoded.num_chunks else []
    codes = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
    return values, np.concatenate([np.empty(0, np.int32), *codes])


def _declared(source: Source) -> tuple[str, ...]:
    """Names of a ClassLabel column, or of a list of them; () for any other."""
    feature = source.table.features[source.columns.label]
    return tuple(getattr(getattr(feature, "feature", feature), "names", None) or ())


def _named(value: Any, declared: Sequence[str], source: Source) -> Any:
    """A ClassLabel's number as its name; anything else as it is."""
    if not declared or value is None:
        return value
    if isinstance(value, list):
        return [_named(v, declared, source) for v in value]
    if not 0 <= value < len(declared):
        raise _no_label(source)
    return declared[value]


def _plain(value: Any, source: Source) -> int | str:
    """A class as whole number or text."""
    if value is None or value == "":
        raise _no_label(source)
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | str):
        return value
    raise Refused(f"{_where(source)} holds {value!r}: a class is a whole number or a text")


def _class(value: Any, number: dict[str, int], source: Source) -> int:
    name = str(_plain(value, source))
    if name not in number:
        raise Refused(
            f"{source.origin}: label {name!r} is not among the {len(number)} classes ({_few(list(number))}): "
            "take these rows out, or train on data that has them"
        )
    return number[name]


def _number(value: Any, source: Source) -> float:
    if value is None or value == "":
        raise _no_label(source)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or isinstance(value, bool):
        raise Refused(f"{_where(source)} holds {value!r}: the task is regression, where each label is a finite number")
    return number


def _listed(value: Any, source: Source) -> list[Any]:
    if isinstance(value, list):
        return value
    raise Refused(f"{_where(source)} holds {value!r} beside lists: for several labels a row, each label is a list")


def _are_numbers(values: Sequence[Any]) -> bool:
    """Floats, or text that is all numbers and not all whole numbers: a measure and not classes."""
    if any(isinstance(value, float) for value in values):
        return all(v is None or (isinstance(v, int | float) and not isinstance(v, bool)) for v in values)
    text = [value for value in values if isinstance(value, str)]
    if len(text) != len(values) or all(_as_whole(value) is not None for value in text):
        return False
    return all(DECIMAL.fullmatch(value) for value in text)


def _ordered(values: Sequence[int | str]) -> list[int | str]:
    whole = [_as_whole(value) for value in values]
    if all(w is not None for w in whole):
        return sorted({w for w in whole if w is not None})
    return sorted({str(value) for value in values})


def _as_whole(value: int | str) -> int | None:
    """5 and "5" -> 5; "05", "5.0" and "five" are text."""
    if isinstance(value, int):
        return value
    digits = value.removeprefix("-")
    return int(value) if digits.isascii() and digits.isdigit() and str(int(value)) == value else None


def _where(source: Source) -> str:
    return f"{source.origin}: column {source.columns.label}"


def _no_label(source: Source) -> Refused:
    return Refused(f"{_where(source)} has rows without a label: take them out")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
