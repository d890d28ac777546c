"""The kinds of task: one of several classes, any of several classes, or a number.

This module needs no torch. Losses and the interpretation of logits are in job/model/outputs.py, metrics in
job/config/metrics.py.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of task.

    Attributes:
        problem_type: Transformers' name for it.
        usual_number: the number that decides which model is best, by default.
        has_classes: whether labels are classes, each with a probability.
        one_label: whether a row has exactly one class. Such labels are int64, and rows can be stratified by them.
    """

    problem_type: str
    usual_number: str
    has_classes: bool
    one_label: bool

    def __str__(self) -> str:
        return self.problem_type.replace("_", " ")


SINGLE_LABEL = Kind("single_label_classification", "accuracy", has_classes=True, one_label=True)
MULTI_LABEL = Kind("multi_label_classification", "f1_micro", has_classes=True, one_label=False)
REGRESSION = Kind("regression", "rmse", has_classes=False, one_label=False)
KINDS = {kind.problem_type: kind for kind in (SINGLE_LABEL, MULTI_LABEL, REGRESSION)}
SCORE = "score"
"""Name of the only output of a regression."""


@dataclass(frozen=True)
class Task:
    """What is predicted of a row.

    Attributes:
        kind: one of KINDS.
        names: the classes in order; ("score",) for regression.
    """

    kind: Kind
    names: tuple[str, ...]

    def __str__(self) -> str:
        if not self.kind.has_classes:
            return "a number (regression)"
        return f"{'' if self.kind.one_label else 'any of '}{len(self.names)} classes"
