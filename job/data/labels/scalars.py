"""One label per row: classes or numbers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from job.config.tasks import MULTI_LABEL, REGRESSION, SCORE, SINGLE_LABEL, Kind, Task
from job.data.labels.class_names import class_name, notes_on_names, ordered
from job.data.labels.numbers import as_number, is_loose_number, parse_decimal, parse_whole
from job.data.labels.reading import Reading
from job.data.labels.source_labels import labels_of, not_a_list, shown
from job.data.sources import Source
from job.errors import Refused

MOSTLY_NUMBERS = 0.9
"""If at least this share of the rows is numeric, other labels are considered mistakes, not classes."""
AS_CLASSES = f"--problem_type {SINGLE_LABEL.problem_type}"
AS_NUMBERS = f"--problem_type {REGRESSION.problem_type}"


def read_scalars(train: Source, asked: Kind | None) -> Reading:
    if asked == MULTI_LABEL:
        raise not_a_list(labels_of(train).values[0], train)
    kind, note = _recognise(train) if asked is None else (asked, None)
    notes = [note] if note else []
    if kind == REGRESSION:
        return Reading(Task(REGRESSION, (SCORE,)), notes=tuple(notes))
    names = labels_of(train).declared or ordered([class_name(value, train) for value in labels_of(train).values])
    notes += notes_on_names(names, train)
    return Reading(Task(SINGLE_LABEL, names), notes=tuple(notes))


def _recognise(train: Source) -> tuple[Kind, str | None]:
    """(classes or regression, a note on this choice if it is a guess)."""
    labels = labels_of(train)
    if labels.declared:
        return SINGLE_LABEL, None
    where = "the labels are"
    numbers = [as_number(value, labels.untyped) for value in labels.values]
    if any(number is None for number in numbers):
        _refuse_odd_among_numbers(train, numbers)
        texts = all(isinstance(v, str) and parse_decimal(v) is not None for v in labels.values)
        return (
            SINGLE_LABEL,
            f"{where} text that looks like numbers, read as classes; {AS_NUMBERS} reads numbers" if texts else None,
        )
    wholes = [_whole(value) for value in labels.values]
    if labels.untyped:
        _refuse_two_spellings(train, [n if w is None else w for n, w in zip(numbers, wholes, strict=True)])
    if all(whole is not None for whole in wholes):
        several = len(set(wholes)) > 2
        return SINGLE_LABEL, f"{where} integers, read as classes; {AS_NUMBERS} reads numbers" if several else None
    if labels.untyped:
        return REGRESSION, f"{where} decimal numbers, read as numbers; {AS_CLASSES} reads classes"
    if all(float(number).is_integer() for number in numbers if number is not None):
        return REGRESSION, f"{where} integers stored as floats, read as numbers; {AS_CLASSES} reads classes"
    return REGRESSION, None


def _whole(value: Any) -> int | None:
    """The integer that a label is, exactly."""
    text_or_number = value.strip() if isinstance(value, str) else value
    return parse_whole(text_or_number) if isinstance(text_or_number, int | str) else None


def _refuse_odd_among_numbers(train: Source, numbers: Sequence[float | None]) -> None:
    """Refused if nearly all labels are numbers; for typed values also if any is a float."""
    labels = labels_of(train)
    loose = [labels.untyped and isinstance(value, str) and is_loose_number(value) for value in labels.values]
    alike = np.array(loose) | np.array([number is not None for number in numbers])
    if labels.counts[alike].sum() >= MOSTLY_NUMBERS * len(labels.codes):
        # Report labels that are not numeric at all first: a missing value is a clearer mistake than a decimal comma.
        odd = min((code for code, number in enumerate(numbers) if number is None), key=lambda code: (alike[code], code))
        place, value = train.place(labels.first_row(odd)), shown(labels.values[odd])
        why = "is not a number, but nearly all others are: correct it or remove the row"
        if alike[odd]:
            why = "has a unit, a decimal comma or separated thousands: write it as a plain number"
        raise Refused(f"{place}: label {value} {why}; if the labels are classes, add {AS_CLASSES}")
    measure = labels.first(lambda value: isinstance(value, float))
    if measure is not None:
        place = train.place(labels.first_row(measure))
        raise Refused(f"{place}: label {labels.values[measure]!r} is a float, but others are not numbers: a class is "
                      f"an integer or text; if each is a class, add {AS_CLASSES}")  # fmt: skip


def _refuse_two_spellings(train: Source, numbers: Sequence[float | None]) -> None:
    spelled: dict[float | None, set[str]] = defaultdict(set)
    for value, number in zip(labels_of(train).values, numbers, strict=True):
        spelled[number].add(value.strip())
        if len(spelled[number]) > 1:
            one, other = sorted(spelled[number])
            raise Refused(f"{train.origin}: labels {shown(one)} and {shown(other)} could be the same number or two "
                          f"classes: decide with {AS_NUMBERS} or {AS_CLASSES}")  # fmt: skip
