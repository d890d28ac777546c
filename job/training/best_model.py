"""Selection of the best evaluation, and early stopping."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from job.config import Evaluation, metrics
from job.config.tasks import Kind
from job.errors import Refused


@dataclass
class Selection:
    """The best evaluation so far.

    Attributes:
        metric: name of the deciding number: `loss` or a number of a metric.
        greater: whether greater is better.
        patience: evaluations without a new best before training stops; None: no early stopping.
    """

    metric: str
    greater: bool
    patience: int | None
    best: float | None = None
    best_step: int = 0
    since_best: int = 0

    def take(self, scores: Mapping[str, float], step: int) -> bool:
        """Add the evaluation after `step` steps; True if its model should be kept. The first of equal scores wins.

        An evaluation whose number is NaN is never the best; until there is a best one, the newest is kept.

        Raises:
            Refused: the scores do not contain the number.
        """
        if self.metric not in scores:
            raise Refused(f"--metric_for_best_model {self.metric} is not computed: choose one of {', '.join(scores)}")
        value = scores[self.metric]
        kept = not self.has_best or self._is_better(value)
        self.since_best = 0 if kept and not math.isnan(value) else self.since_best + 1
        if kept:
            self.best, self.best_step = value, step
        return kept

    def _is_better(self, value: float) -> bool:
        assert self.best is not None
        return value > self.best if self.greater else value < self.best

    @property
    def has_best(self) -> bool:
        """Whether any evaluation gave a number that is not NaN."""
        return self.best is not None and not math.isnan(self.best)

    @property
    def should_stop(self) -> bool:
        return self.patience is not None and self.since_best >= self.patience


def selection(evaluation: Evaluation, kind: Kind) -> Selection:
    """The configured selection. By default, lower is better for losses and errors, greater for all else."""
    decided_by = metrics.deciding(asdict(evaluation), kind)
    return Selection(decided_by.number, not decided_by.lower_is_better, evaluation.early_stopping_patience)
