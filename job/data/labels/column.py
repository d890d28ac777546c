"""A label column, read from any source: its distinct values, and the value of every row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from job.data.labels.numbers import as_number, parse_whole

if TYPE_CHECKING:
    from datasets import Dataset

WITHHELD = -1
"""The value of unpublished labels in a ClassLabel column, as in GLUE's test sets."""


@dataclass(frozen=True)
class LabelColumn:
    """Labels as Python values, not yet interpreted.

    Attributes:
        values: the distinct labels in order of their first row. A class number of a ClassLabel column is replaced by
            its name; None is a missing label.
        codes: int32[n], the index in `values` of each row's label.
        declared: class names declared by the dataset; else ().
        untyped: whether the file format has no types (csv, tsv), so that numbers are text.
    """

    values: tuple[Any, ...]
    codes: np.ndarray
    declared: tuple[str, ...] = ()
    untyped: bool = False

    @property
    def counts(self) -> np.ndarray:
        """int64[len(values)], the number of rows of each value."""
        return np.bincount(self.codes, minlength=len(self.values))

    def first(self, holds: Callable[[Any], bool]) -> int | None:
        """The index of the first value that fulfils a condition; None if there is none."""
        return next((code for code, value in enumerate(self.values) if holds(value)), None)

    def first_row(self, code: int) -> int:
        """The first row (0-based) with the value at this index."""
        return int(np.argmax(self.codes == code))


def from_table(table: Dataset, name: str, as_json: bool = False, untyped: bool = False) -> LabelColumn:
    """The labels in column `name`; `as_json`: each cell contains the JSON text of its value."""
    column: pa.ChunkedArray = table.data.column(name)
    if pa.types.is_nested(column.type):
        as_json, column = True, _as_json_text(column)
    elif pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    elif pa.types.is_null(column.type):
        column = column.cast(pa.string())
    declared = class_names(table.features[name])
    # One chunk: unifying the dictionaries of many chunks takes quadratic time if all labels differ.
    encoded = column.combine_chunks().dictionary_encode(null_encoding="encode")
    cells = encoded.dictionary.to_pylist()
    values = (json.loads(cell) if as_json and cell is not None else cell for cell in cells)
    return LabelColumn(
        values=tuple(_decoded(value, declared) for value in values),
        codes=encoded.indices.to_numpy(zero_copy_only=False),
        declared=declared,
        untyped=untyped,
    )


def as_declared(column: LabelColumn, feature: Any) -> LabelColumn:
    """The labels of a text file, interpreted with the type that its dataset declares (None: it declares none).

    A class is given by name or number; declared strings are never numbers; floats may be written as text, as in csv.
    """
    names = class_names(feature)
    dtype = str(getattr(feature, "dtype", ""))
    if names:
        values = tuple(_decoded(_declared_class(value, names), names) for value in column.values)
        return dataclasses.replace(column, values=values, declared=names, untyped=False)
    if "string" in dtype:
        return dataclasses.replace(column, untyped=False)
    if dtype.startswith("float"):
        numbers = [as_number(value, untyped=True) for value in column.values]
        values = tuple(v if n is None else n for v, n in zip(column.values, numbers, strict=True))
        return dataclasses.replace(column, values=values, untyped=False)
    return column


def class_names(feature: Any) -> tuple[str, ...]:
    """The names of a ClassLabel, or of a list of them; else ()."""
    return tuple(getattr(getattr(feature, "feature", feature), "names", None) or ())


def _declared_class(value: Any, names: tuple[str, ...]) -> Any:
    """A class number that a csv stores as text, as a number; a name unchanged."""
    number = parse_whole(value) if isinstance(value, str) and value not in names else None
    return value if number is None else number


def _as_json_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    def plain(value: Any) -> float | str:
        return float(value) if isinstance(value, Decimal) else str(value)

    def text(cell: Any) -> str | None:
        return None if cell is None else json.dumps(cell, default=plain)

    return pa.chunked_array([pa.array(map(text, c.to_pylist()), pa.string()) for c in column.chunks], pa.string())


def _decoded(value: Any, declared: tuple[str, ...]) -> Any:
    """A class number as its name, a null or blank as None, a decimal as float; other values unchanged."""
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, Decimal):
        return float(value)
    if declared and isinstance(value, int) and value == WITHHELD:
        return None
    return declared[value] if declared and isinstance(value, int) and 0 <= value < len(declared) else value
