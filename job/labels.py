"""Labels of any type -> class numbers 0..C-1, in an order that does not depend on which row comes first.

The order: the data set's own ClassLabel names; else whole numbers by value ("10" after "2", also where a csv holds
them as text); else text in code point order. A model that already has exactly these names keeps its own order.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from job.errors import Refused
from job.sources import Source

Value = int | str


def class_names(train: Source, of_model: Sequence[str] = ()) -> tuple[str, ...]:
    """Names of the classes of the training data, in class order.

    Args:
        train: the source that defines the classes.
        of_model: the names that the pretrained model has; () if it has none of its own.

    Raises:
        Refused: fewer than two classes, or a value that is no class.
    """
    declared = getattr(_feature(train), "names", None)
    names = tuple(declared) if declared else tuple(str(v) for v in _ordered(_distinct(train), train.origin))
    if len(names) < 2:
        raise Refused(f"{train.origin}: column {train.columns.label} has one class only ({names[0] if names else '-'})")
    return tuple(of_model) if set(of_model) == set(names) else names


def encode(source: Source, names: Sequence[str]) -> np.ndarray:
    """The class number of every row of `source`: int64[rows].

    Raises:
        Refused: a label that is none of `names`.
    """
    declared = getattr(_feature(source), "names", None)
    number = {name: i for i, name in enumerate(names)}
    column = source.table.data.column(source.columns.label)
    if column.null_count:
        raise Refused(f"{source.origin}: column {source.columns.label} has rows without a label")
    dictionary = column.combine_chunks().dictionary_encode()
    if isinstance(dictionary, pa.ChunkedArray):  # pyarrow gives either, by the number of chunks
        dictionary = dictionary.combine_chunks()
    values = [_plain(value, source, declared) for value in dictionary.dictionary.to_pylist()]
    unknown = [str(value) for value in values if str(value) not in number]
    if unknown:
        raise Refused(
            f"{source.origin}: label {unknown[0]!r} is not among the {len(number)} classes ({_few(names)}): "
            "take these rows out, or train on data that has them"
        )
    codes = np.array([number[str(value)] for value in values], dtype=np.int64)
    return codes[dictionary.indices.to_numpy(zero_copy_only=False)]


def _feature(source: Source) -> Any:
    return source.table.features[source.columns.label]


def _distinct(source: Source) -> list[Value]:
    unique = source.table.data.column(source.columns.label).unique().to_pylist()
    return [_plain(value, source, None) for value in unique]


def _plain(value: Any, source: Source, declared: Sequence[str] | None) -> Value:
    """A label as it stands in the table -> whole number or text."""
    where = f"{source.origin}: column {source.columns.label}"
    if source.json_labels and value is not None:
        value = json.loads(value)
    if declared is not None:
        if value is None or not 0 <= value < len(declared):
            raise Refused(f"{where} has rows without a label")
        return declared[value]
    if value is None or value == "":
        raise Refused(f"{where} has rows without a label")
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, int | str):
        return value
    raise Refused(f"{where} holds {value!r}: a class is a whole number or a text")


def _ordered(values: Sequence[Value], origin: str) -> list[Value]:
    whole = [_as_whole(value) for value in values]
    if all(w is not None for w in whole):
        return sorted({w for w in whole if w is not None})
    return sorted({str(value) for value in values})


def _as_whole(value: Value) -> int | None:
    """5 and "5" -> 5; "05", "5.0" and "five" are text."""
    if isinstance(value, int):
        return value
    digits = value.removeprefix("-")
    return int(value) if digits.isascii() and digits.isdigit() and str(int(value)) == value else None


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
