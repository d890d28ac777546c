"""Which evaluation was the best, and when to stop waiting for a better one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from job.config import Evaluation
from job.config.metrics import LOWER_IS_BETTER, as_computed, deciding_number
from job.config.tasks import Kind
from job.errors import Refused


@dataclass
class Selection:
    """The best evaluation so far.

    Attributes:
        metric: name of the number that decides; `loss` or one that a metric gives.
        greater: whether more of it is better.
        patience: evaluations without a new best before stopping; None: never.
    """

    metric: str
    greater: bool
    patience: int | None
    best: float | None = None
    best_step: int = 0
    since_best: int = 0

    def take(self, scores: Mapping[str, float], step: int) -> bool:
        """Take in the evaluation after `step` steps; True if its model is to be kept. Of equals the first counts.

        Where the number has no value (NaN) the evaluation is never the best, but the newest is kept until there is one.

        Raises:
            Refused: the scores hold no such number.
        """
        if self.metric not in scores:
            raise Refused(f"--metric_for_best_model {self.metric}: the metrics give {', '.join(scores)}")
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
        """Whether an evaluation gave a value that can be compared."""
        return self.best is not None and not math.isnan(self.best)

    @property
    def should_stop(self) -> bool:
        return self.patience is not None and self.since_best >= self.patience


def selection(evaluation: Evaluation, kind: Kind) -> Selection:
    """As configured; the direction, unless given, is down for losses and errors and up for all else."""
    asked = evaluation.metric_for_best_model
    metric = as_computed(asked) if asked else deciding_number(evaluation.metrics, kind)
    greater = evaluation.greater_is_better
    direction = metric not in LOWER_IS_BETTER if greater is None else greater
    return Selection(metric, direction, evaluation.early_stopping_patience)
