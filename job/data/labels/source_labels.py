"""The labels of a source, and parts of messages about them: the row, the value, a missing label, not a list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from job.data.labels.column import LabelColumn
from job.data.sources import Source
from job.errors import Refused


def labels_of(source: Source) -> LabelColumn:
    assert source.labels is not None
    return source.labels


def require_labels(source: Source) -> None:
    missing = labels_of(source).first(lambda value: value is None)
    if missing is not None:
        place = source.place(labels_of(source).first_row(missing))
        remedy = "label every row, or add --no_label" if source.to_predict else "add it or remove the row"
        raise Refused(f"{place}: no label in column {source.columns.label}: {remedy}")


def not_a_list(value: Any, source: Source) -> Refused:
    return Refused(f"{place_of(value, source)}: label {shown(value)} is not a list: for several labels per row, write "
                   "each label as a list (in jsonl, json or parquet)")  # fmt: skip


def place_of(value: Any, source: Source) -> str:
    code = labels_of(source).first(lambda other: other is value)
    return source.origin if code is None else source.place(labels_of(source).first_row(code))


def shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
