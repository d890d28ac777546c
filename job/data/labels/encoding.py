"""Labels as arrays of numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from job.config.tasks import REGRESSION, SINGLE_LABEL
from job.data.labels.class_names import are_placeholders, class_name, named_element
from job.data.labels.lists import declared_indicators, refuse_repeats
from job.data.labels.numbers import as_number, parse_decimal
from job.data.labels.reading import Reading
from job.data.labels.source_labels import few, labels_of, not_a_list, place_of, require_labels, shown
from job.data.sources import Source
from job.errors import Refused


def encode(source: Source, reading: Reading) -> np.ndarray:
    """The label of every row of `source`: int64[n] classes, float64[n] numbers, or int8[n, C] of 0 and 1.

    For a class with the default name LABEL_2 the label 2 is accepted too, which its model was trained on.

    Raises:
        Refused: a label is not one of the task's, or is missing.
    """
    require_labels(source)
    labels, task = labels_of(source), reading.task
    if task.kind == REGRESSION:
        return np.array([_number(value, source) for value in labels.values], dtype=np.float64)[labels.codes]
    numbers = _class_numbers(task.names, labels.declared)
    if task.kind == SINGLE_LABEL:
        of_values = [_class_number(value, numbers, source) for value in labels.values]
        return np.array(of_values, dtype=np.int64)[labels.codes]
    positions = _indicator_positions(reading, numbers, source) if reading.indicators else []
    if not positions:
        refuse_repeats(source, task.names)
    rows = np.zeros((len(labels.values), len(task.names)), dtype=np.int8)
    for row, value in zip(rows, labels.values, strict=True):
        if not isinstance(value, list):
            raise not_a_list(value, source)
        if positions:
            row[positions] = _indicator_row(value, len(positions), source)
        else:
            row[[_class_number(named_element(v, source), numbers, source, value) for v in value]] = 1
    return rows[labels.codes]


def _class_numbers(names: Sequence[str], declared: Sequence[str]) -> dict[str, int]:
    """The number of each class by every name that labels may use, the class names first.

    `declared`: the dataset's names for the same numbers, if there are equally many.
    """
    numbers = {name: number for number, name in enumerate(names)}
    if are_placeholders(names):
        others = [*map(str, range(len(names))), *(declared if len(declared) == len(names) else ())]
        for position, other in enumerate(others):
            numbers.setdefault(other, position % len(names))
    return numbers


def _class_number(value: Any, numbers: dict[str, int], source: Source, whole: Any = None) -> int:
    """The number of the class; `whole` is the list that contains the label, if any."""
    name = class_name(value, source, whole)
    if name not in numbers:
        place = place_of(value if whole is None else whole, source)
        remedy = "remove these rows, or train on data that has them"
        if source.to_predict:
            remedy = f"remove these rows, or add --no_label if {source.columns.label} is not the label"
        classes = list(numbers)[: len(set(numbers.values()))]
        raise Refused(f"{place}: label {shown(name)} is not one of the {len(classes)} classes ({few(classes)}): "
                      f"{remedy}")  # fmt: skip
    return numbers[name]


def _number(value: Any, source: Source) -> float:
    number = parse_decimal(value) if isinstance(value, str) else as_number(value, untyped=False)
    if number is None or not math.isfinite(number):
        remedy = f"correct it or remove the row{', or add --no_label' if source.to_predict else ''}"
        raise Refused(f"{place_of(value, source)}: label {shown(value)} is not a finite number, as regression needs: "
                      f"{remedy}")  # fmt: skip
    return number


def _indicator_positions(reading: Reading, numbers: dict[str, int], source: Source) -> list[int]:
    """The number of the class of each 0 or 1 in a list: by the names that the dataset declares, if it does."""
    names, classes = reading.indicators, reading.task.names
    declared = declared_indicators(labels_of(source), len(names))
    positions = [numbers[name] for name in declared or names if name in numbers]
    if len(set(positions)) < len(classes):
        raise Refused(f"{source.origin}: column {source.columns.label} has a 0 or 1 for each of {few(declared)}, but "
                      f"the classes are {few(classes)}: use data with these classes, or train on data that has "
                      "them")  # fmt: skip
    return positions


def _indicator_row(value: list[Any], width: int, source: Source) -> list[int]:
    if len(value) != width or not all(isinstance(v, bool | int | float) and v in (0, 1) for v in value):
        raise Refused(f"{place_of(value, source)}: label {shown(value)} must be a list of {width} numbers, 0 or 1 for "
                      "each class")  # fmt: skip
    return [int(v) for v in value]
