"""The task that labels define: recognised by their values, or set by --problem_type and the model."""

from __future__ import annotations

from job.config.tasks import MULTI_LABEL, REGRESSION, Kind, Task
from job.data.labels.column import WITHHELD
from job.data.labels.lists import (
    declared_indicators,
    indicator_note,
    indicator_width,
    numbered,
    read_lists,
    refuse_uneven_indicators,
)
from job.data.labels.reading import Reading
from job.data.labels.scalars import read_scalars
from job.data.labels.source_labels import few, labels_of, require_labels
from job.data.sources import Source
from job.errors import Refused


def read_task(train: Source, of_model: Task | None = None, asked: Kind | None = None) -> Reading:
    """The task that the training data defines.

    Args:
        train: the source that defines the classes.
        of_model: the task that the model was fine-tuned for; None if it was not.
        asked: the kind given by --problem_type; None: recognise it.

    Raises:
        Refused: fewer than two classes, an invalid label, or ambiguous values.
    """
    require_labels(train)
    values = labels_of(train).values
    if any(isinstance(value, list) for value in values):
        reading = read_lists(train, asked)
    else:
        reading = read_scalars(train, asked)
    task = reading.task
    if task.kind == REGRESSION:
        return reading
    if len(task.names) < 2:
        only = task.names[0] if task.names else "none"
        raise Refused(f"{train.origin}: column {train.columns.label} has only one class ({only}): at least two are "
                      "needed")  # fmt: skip
    if of_model is not None and of_model.kind == task.kind and set(of_model.names) == set(task.names):
        return Reading(of_model, reading.indicators, reading.notes)
    return reading


def read_task_of_model(of_model: Task, evaluated: Source | None, asked: Kind | None = None) -> Reading:
    """How labels are read without training. `evaluated` is a source with labels, if there is one.

    Raises:
        Refused: --problem_type does not fit the model.
    """
    kind = asked or of_model.kind
    if kind == REGRESSION and len(of_model.names) > 1:
        raise Refused(
            f"--problem_type {kind.problem_type}: the model has {len(of_model.names)} classes ({few(of_model.names)})"
        )
    if kind != REGRESSION and of_model.kind == REGRESSION:
        raise Refused(f"--problem_type {kind.problem_type}: the model was fine-tuned for regression")
    task = Task(kind, of_model.names)
    width = len(task.names)
    if kind == MULTI_LABEL and evaluated is not None:
        refuse_uneven_indicators(evaluated)
    if kind != MULTI_LABEL or evaluated is None or indicator_width(labels_of(evaluated)) != width:
        return Reading(task)
    in_order = numbered(width) if set(numbered(width)) == set(task.names) else task.names
    return Reading(task, in_order, (indicator_note(declared_indicators(labels_of(evaluated), width) or in_order),))


def is_unlabelled(source: Source, task: Task) -> bool:
    """Whether a test set has no labels: no label column, or only nulls, blanks or, for classes, GLUE's -1 in it."""
    if source.labels is None:
        return True
    may_be_withheld = task.kind.has_classes and str(WITHHELD) not in task.names
    withheld = (None, *((WITHHELD, str(WITHHELD)) if may_be_withheld else ()))
    return all(not isinstance(value, bool | list) and value in withheld for value in source.labels.values)
