"""How the labels of a run are read."""

from __future__ import annotations

from dataclasses import dataclass

from job.config.tasks import Task


@dataclass(frozen=True)
class Reading:
    """How the labels of a run are read.

    Attributes:
        task: the task that they define.
        indicators: the class of each 0 or 1 in a list of labels; (): a list has the classes that apply. A dataset that
            names its own classes may have another order.
        notes: guesses to tell the user about.
    """

    task: Task
    indicators: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
