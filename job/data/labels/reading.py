"""How the labels of a run are read."""

from __future__ import annotations

from dataclasses import dataclass

from job.config.tasks import Task


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
