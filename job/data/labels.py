"""Labels of any type -> what a model is trained on, in an order that does not depend on which row comes first.

The kind of task follows from the values. A data set's own ClassLabel names and text are classes; so are whole numbers.
Floats are regression; lists are several labels a row. In csv all is text: there, labels that are all numbers, and not
all whole, are regression. Class order: the data set's own names; else whole numbers by value ("10" after "2"); else
text in code point order. A model that already has exactly these names keeps its order.

A form that could also be read otherwise is noted with the flag that decides, --problem_type; where a wrong reading
would pass unseen it is rejected.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from job.config.tasks import MULTI_LABEL, REGRESSION, SCORE, SINGLE_LABEL, Kind, Task
from job.data import label_notes
from job.data.label_column import WITHHELD, LabelColumn
from job.data.label_numbers import is_loose_number, parse_decimal, parse_whole
from job.data.sources import Source
from job.errors import Refused

MOSTLY_NUMBERS = 0.9
"""Share of the rows from which on a label that is no number is taken for a mistake and not for a class."""
AS_CLASSES = f"--problem_type {SINGLE_LABEL.problem_type}"
AS_NUMBERS = f"--problem_type {REGRESSION.problem_type}"


@dataclass(frozen=True)
class Reading:
    """How the labels of a run are read.

    Attributes:
        task: what they mean.
        indicators: whether a list of labels has a 0 or 1 for each class, instead of naming the classes that apply.
        notes: what was guessed, for the user.
    """

    task: Task
    indicators: bool = False
    notes: tuple[str, ...] = ()


def read_task(train: Source, of_model: Task | None = None, asked: Kind | None = None) -> Reading:
    """The task that the training data sets.

    Args:
        train: the source that defines the classes.
        of_model: what the pretrained model was fine-tuned for; None if it was not.
        asked: the kind that --problem_type names; None: recognise.

    Raises:
        Refused: fewer than two classes, a value that is no label, or values that can be read in two ways.
    """
    _require_labels(train)
    values = _labels(train).values
    if any(isinstance(value, list) for value in values):
        reading = _read_lists(train, asked)
    else:
        reading = _read_scalars(train, asked)
    task = reading.task
    if task.kind == REGRESSION:
        return reading
    if len(task.names) < 2:
        only = task.names[0] if task.names else "none"
        raise Refused(f"{train.origin}: column {train.columns.label} has only one class ({only}): two are needed")
    if of_model is not None and of_model.kind == task.kind and set(of_model.names) == set(task.names):
        return Reading(of_model, reading.indicators, reading.notes)
    return reading


def read_task_of_model(of_model: Task, evaluated: Source | None, asked: Kind | None = None) -> Reading:
    """How labels are read where nothing is trained; `evaluated` has labels, or there are none.

    Raises:
        Refused: --problem_type asks for what the model cannot give.
    """
    kind = asked or of_model.kind
    if kind == REGRESSION and len(of_model.names) > 1:
        raise Refused(
            f"--problem_type {kind.problem_type}: the model has {len(of_model.names)} classes ({_few(of_model.names)})"
        )
    if kind != REGRESSION and of_model.kind == REGRESSION:
        raise Refused(f"--problem_type {kind.problem_type}: the model was fine-tuned for regression")
    task = Task(kind, of_model.names)
    if kind != MULTI_LABEL or evaluated is None or _width_of_indicators(_labels(evaluated)) != len(task.names):
        return Reading(task)
    return Reading(task, indicators=True, notes=(_indicator_note(task.names),))


def are_placeholders(names: Sequence[str]) -> bool:
    """Whether these are Transformers' names of classes that have none: LABEL_0, LABEL_1, ..."""
    return all(name == f"LABEL_{number}" for number, name in enumerate(names))


def encode(source: Source, reading: Reading) -> np.ndarray:
    """The label of every row of `source`: int64[n] classes, float64[n] numbers, or int8[n, C] of 0 and 1.

    A class whose only name is LABEL_2 is also understood as 2, the number that its model was trained on.

    Raises:
        Refused: a label that the task does not have, or none where one is needed.
    """
    _require_labels(source)
    labels, task = _labels(source), reading.task
    if task.kind == REGRESSION:
        return np.array([_number(value, source) for value in labels.values], dtype=np.float64)[labels.codes]
    numbers = _numbers_of(task.names, labels.declared)
    if task.kind == SINGLE_LABEL:
        return np.array([_class(value, numbers, source) for value in labels.values], dtype=np.int64)[labels.codes]
    rows = np.zeros((len(labels.values), len(task.names)), dtype=np.int8)
    for row, value in zip(rows, labels.values, strict=True):
        if not isinstance(value, list):
            raise _not_a_list(value, source)
        if reading.indicators:
            row[:] = _indicators(value, len(task.names), source)
        else:
            row[[_class(_named(v, source), numbers, source, value) for v in value]] = 1
    return rows[labels.codes]


def _numbers_of(names: Sequence[str], declared: Sequence[str]) -> dict[str, int]:
    """The number of each class by what a label may call it, the names first.

    `declared`: names that the data set has for the same numbers, if they are as many.
    """
    numbers = {name: number for number, name in enumerate(names)}
    if are_placeholders(names):
        others = [*map(str, range(len(names))), *(declared if len(declared) == len(names) else ())]
        for position, other in enumerate(others):
            numbers.setdefault(other, position % len(names))
    return numbers


def is_unlabelled(source: Source, task: Task) -> bool:
    """Whether a test set has no labels: no such column, or only nulls, blanks or GLUE's -1 in it."""
    if source.labels is None:
        return True
    withheld = (None, *((WITHHELD, str(WITHHELD)) if str(WITHHELD) not in task.names else ()))
    return all(not isinstance(value, bool | list) and value in withheld for value in source.labels.values)


# ---------------------------------------------------------------------------------------------------------------------
# One label a row


def _read_scalars(train: Source, asked: Kind | None) -> Reading:
    if asked == MULTI_LABEL:
        raise _not_a_list(_labels(train).values[0], train)
    kind, note = _recognise(train) if asked is None else (asked, None)
    notes = [note] if note else []
    if kind == REGRESSION:
        return Reading(Task(REGRESSION, (SCORE,)), notes=tuple(notes))
    names = _labels(train).declared or _ordered([_class_name(value, train) for value in _labels(train).values])
    notes += _notes_on_names(names, train)
    return Reading(Task(SINGLE_LABEL, names), notes=tuple(notes))


def _recognise(train: Source) -> tuple[Kind, str | None]:
    """(classes or regression, what there is to note of this choice)."""
    labels = _labels(train)
    if labels.declared:
        return SINGLE_LABEL, None
    where = "the labels are"
    numbers = [_as_number(value, labels.untyped) for value in labels.values]
    if any(number is None for number in numbers):
        _reject_odd_among_numbers(train, numbers)
        texts = all(isinstance(v, str) and parse_decimal(v) is not None for v in labels.values)
        return (
            SINGLE_LABEL,
            f"{where} text that looks like numbers, read as classes; {AS_NUMBERS} reads numbers" if texts else None,
        )
    if all(isinstance(v, int) or (isinstance(v, str) and parse_whole(v.strip()) is not None) for v in labels.values):
        several = len(set(numbers)) > 2
        return SINGLE_LABEL, f"{where} whole numbers, read as classes; {AS_NUMBERS} reads numbers" if several else None
    if labels.untyped:
        _reject_two_spellings(train, numbers)
        return REGRESSION, f"{where} decimal numbers, read as numbers; {AS_CLASSES} reads classes"
    if all(float(number).is_integer() for number in numbers if number is not None):
        return REGRESSION, f"{where} whole numbers stored as floats, read as numbers; {AS_CLASSES} reads classes"
    return REGRESSION, None


def _as_number(value: Any, untyped: bool) -> float | None:
    """The number that a label is; text is one only where the format knows no types."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return parse_decimal(value) if untyped and isinstance(value, str) else None


def _reject_odd_among_numbers(train: Source, numbers: Sequence[float | None]) -> None:
    """Raise Refused where nearly all labels are numbers; of typed values, also where any is a float."""
    labels = _labels(train)
    loose = [labels.untyped and isinstance(value, str) and is_loose_number(value) for value in labels.values]
    alike = np.array(loose) | np.array([number is not None for number in numbers])
    if labels.counts[alike].sum() >= MOSTLY_NUMBERS * len(labels.codes):
        # What is no number in any way comes first: a missing value says more than a decimal comma.
        odd = min((code for code, number in enumerate(numbers) if number is None), key=lambda code: (alike[code], code))
        place, value = train.place(labels.first_row(odd)), _shown(labels.values[odd])
        why = "is not a number and nearly all others are: correct it or remove the row"
        if alike[odd]:
            why = "is a number only without its unit or decimal comma: write it so that it is one"
        raise Refused(f"{place}: label {value} {why}; if the labels are classes, add {AS_CLASSES}")
    measure = labels.first(lambda value: isinstance(value, float))
    if measure is not None:
        place = train.place(labels.first_row(measure))
        raise Refused(f"{place}: label {labels.values[measure]!r} is a number and others are not: a class is a whole "
                      f"number or a text; if each is a class, add {AS_CLASSES}")  # fmt: skip


def _reject_two_spellings(train: Source, numbers: Sequence[float | None]) -> None:
    spelled: dict[float | None, set[str]] = defaultdict(set)
    for value, number in zip(_labels(train).values, numbers, strict=True):
        spelled[number].add(value.strip())
        if len(spelled[number]) > 1:
            one, other = sorted(spelled[number])
            raise Refused(f"{train.origin}: labels {one!r} and {other!r} are one number or two classes: "
                          f"decide with {AS_NUMBERS} or {AS_CLASSES}")  # fmt: skip


def _class_name(value: Any, source: Source, whole: Any = None) -> str:
    """The name of the class that a label means; `whole` is the list that it is a part of."""
    if isinstance(value, str):
        untyped = source.labels is not None and source.labels.untyped
        return value.strip() if untyped and parse_decimal(value) is not None else value
    if isinstance(value, bool | int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return str(int(value)) if value.is_integer() else str(value)
    place = _place_of(value if whole is None else whole, source)
    raise Refused(f"{place}: label {_shown(value)}: a class is a whole number or a text")


def _class(value: Any, numbers: dict[str, int], source: Source, whole: Any = None) -> int:
    """The number of the class; `whole` is the list that it is a part of."""
    name = _class_name(value, source, whole)
    if name not in numbers:
        place = _place_of(value if whole is None else whole, source)
        remedy = "remove these rows, or train on data that has them"
        if source.to_predict:
            remedy = f"remove these rows, or add --no_label if {source.columns.label} is not the label"
        classes = list(numbers)[: len(set(numbers.values()))]
        raise Refused(f"{place}: label {_shown(name)} is not among the {len(classes)} classes ({_few(classes)}): "
                      f"{remedy}")  # fmt: skip
    return numbers[name]


def _number(value: Any, source: Source) -> float:
    number = parse_decimal(value) if isinstance(value, str) else _as_number(value, untyped=False)
    if number is None or not math.isfinite(number):
        raise Refused(f"{_place_of(value, source)}: label {_shown(value)}: the task is regression, where each label is "
                      "a finite number")  # fmt: skip
    return number


def _ordered(names: Iterable[str]) -> tuple[str, ...]:
    """Each name once: whole numbers by value, else text by code points."""
    different = set(names)
    if all(parse_whole(name) is not None for name in different):
        return tuple(sorted(different, key=int))
    return tuple(sorted(different))


# ---------------------------------------------------------------------------------------------------------------------
# Lists: several labels a row


def _read_lists(train: Source, asked: Kind | None) -> Reading:
    labels = _labels(train)
    if asked is not None and asked != MULTI_LABEL:
        raise Refused(f"{train.origin}: column {train.columns.label} holds lists: --problem_type {asked.problem_type} "
                      f"needs one label a row, lists are {MULTI_LABEL.problem_type}")  # fmt: skip
    for value in labels.values:
        if not isinstance(value, list):
            raise _not_a_list(value, train)
    width = _width_of_indicators(labels)
    if width:
        fitting = labels.declared if len(labels.declared) == width else ()
        names = fitting or tuple(map(str, range(width)))
        return Reading(Task(MULTI_LABEL, names), indicators=True, notes=(_indicator_note(names),))
    parts = {_class_name(_named(part, train), train, value) for value in labels.values for part in value}
    names = labels.declared or _ordered(parts)
    return Reading(Task(MULTI_LABEL, names), notes=tuple(_notes_on_names(names, train)))


def _width_of_indicators(labels: LabelColumn) -> int:
    """The length of lists that all have this length, two or more, and hold only 0 and 1; else 0.

    Lists of numbers of declared classes are indicators only where they have an entry for each class, or repeat one.
    """
    lists = [value for value in labels.values if isinstance(value, list)]
    widths = {len(value) for value in lists}
    if len(lists) < len(labels.values) or len(widths) != 1 or min(widths) < 2:
        return 0
    if not all(isinstance(v, bool | int | float) and v in (0, 1) for value in lists for v in value):
        return 0
    width = widths.pop()
    repeats = any(len(set(value)) < width for value in lists)
    return width if repeats or not labels.declared or len(labels.declared) == width else 0


def _indicators(value: list[Any], width: int, source: Source) -> list[int]:
    if len(value) != width or not all(isinstance(v, bool | int | float) and v in (0, 1) for v in value):
        raise Refused(f"{_place_of(value, source)}: label {_shown(value)}: each label is a list of {width} numbers, 0 "
                      "or 1 for each class")  # fmt: skip
    return [int(v) for v in value]


def _indicator_note(names: Sequence[str]) -> str:
    return (
        f"the labels are lists of {len(names)} numbers, read as a 0 or 1 for each of the classes "
        f"{_few(names)}; lists of the classes that apply are read where they are written as text"
    )


def _named(part: Any, source: Source) -> Any:
    """An element of a list: the number of a declared class as its name."""
    declared = _labels(source).declared
    is_number = isinstance(part, int) and not isinstance(part, bool)
    return declared[part] if declared and is_number and 0 <= part < len(declared) else part


def _not_a_list(value: Any, source: Source) -> Refused:
    return Refused(f"{_place_of(value, source)}: label {_shown(value)} is not a list: for several labels a row, each "
                   "label is a list (in jsonl, json or parquet)")  # fmt: skip


# ---------------------------------------------------------------------------------------------------------------------
# What messages say


def _notes_on_names(names: Sequence[str], source: Source) -> list[str]:
    """Class names that look as if they meant something else; declared ones are meant as they are."""
    if _labels(source).declared:
        return []
    return list(label_notes.notes(names))


def _labels(source: Source) -> LabelColumn:
    assert source.labels is not None
    return source.labels


def _require_labels(source: Source) -> None:
    missing = _labels(source).first(lambda value: value is None)
    if missing is not None:
        place = source.place(_labels(source).first_row(missing))
        remedy = "label every row, or add --no_label" if source.to_predict else "add it or remove the row"
        raise Refused(f"{place}: no label in column {source.columns.label}: {remedy}")


def _place_of(value: Any, source: Source) -> str:
    code = _labels(source).first(lambda other: other is value)
    return source.origin if code is None else source.place(_labels(source).first_row(code))


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
