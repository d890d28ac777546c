"""How the labels of a run are read."""

from __future__ import annotations

from dataclasses import dataclass

from job.config.tasks import Task


@dataclass(frozen=True)
class Reading:
    """How the labels of a run are read.

    Attributes:
        task: the task that they define.
        indicators: whether a list of labels has a 0 or 1 for each class, instead of the classes that apply.
        notes: guesses to tell the user about.
    """

    task: Task
    indicators: bool = False
    notes: tuple[str, ...] = ()
