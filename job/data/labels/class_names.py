"""The names of classes: the name that a label gives, their order, and Transformers' placeholders."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from job.data.labels import name_notes
from job.data.labels.numbers import parse_decimal, parse_whole
from job.data.labels.source_labels import labels_of, place_of, shown
from job.data.sources import Source
from job.errors import Refused


def class_name(value: Any, source: Source, whole: Any = None) -> str:
    """The name of the class of a label; `whole` is the list that contains it, if any."""
    if isinstance(value, str):
        untyped = source.labels is not None and source.labels.untyped
        return value.strip() if untyped and parse_decimal(value) is not None else value
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else str(value)
    place = place_of(value if whole is None else whole, source)
    raise Refused(f"{place}: label {shown(value)}: a class is an integer or text")


def named_element(part: Any, source: Source) -> Any:
    """An element of a list; the number of a declared class is replaced by its name."""
    declared = labels_of(source).declared
    is_number = isinstance(part, int) and not isinstance(part, bool)
    return declared[part] if declared and is_number and 0 <= part < len(declared) else part


def ordered(names: Iterable[str]) -> tuple[str, ...]:
    """The distinct names: integers in order of value, else text in order of code points."""
    different = set(names)
    if all(parse_whole(name) is not None for name in different):
        return tuple(sorted(different, key=lambda name: (int(name), name)))
    return tuple(sorted(different))


def are_placeholders(names: Sequence[str]) -> bool:
    """Whether these are Transformers' default class names: LABEL_0, LABEL_1, ..."""
    return all(name == f"LABEL_{number}" for number, name in enumerate(names))


def notes_on_names(names: Sequence[str], source: Source) -> list[str]:
    """Notes on suspicious class names; names declared by the dataset are not questioned."""
    if labels_of(source).declared:
        return []
    return list(name_notes.notes(names))
