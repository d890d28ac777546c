"""Importance of each setting of a sweep: its share of the variance of the score, computed by fANOVA.

Hutter, Hoos and Leyton-Brown, "An Efficient Approach for Assessing Hyperparameter Importance" (ICML 2014), as
implemented in Optuna: a random forest predicts the score from the settings. Needs the training environment.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from typing import Any

from launch.runs.results import DATA, Row, differing

MIN_ROWS = 4
"""With fewer rows the shares would be meaningless."""


def importances(rows: Sequence[Row]) -> dict[str, float]:
    """Name of a setting -> its share, largest first; empty if the shares cannot be computed.

    Runs that differ only in their seed count as one, with the mean of their scores.
    """
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    rows = [row for row in rows if math.isfinite(row.mean)]
    names = [name for name in differing([row.runs[0].settings for row in rows]) if name != DATA]
    if len(rows) < MIN_ROWS or len(names) < 2:
        return {}
    distributions = {name: _distribution([row.runs[0].settings.get(name) for row in rows]) for name in names}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for row in rows:
        settings = {name: row.runs[0].settings.get(name) for name in names}
        study.add_trial(optuna.create_trial(params=settings, distributions=distributions, value=row.mean))
    with contextlib.suppress(RuntimeError):  # raised if all scores are equal
        return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {}


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    low, high = min(values), max(values)
    return FloatDistribution(low, high, log=low > 0 and high >= 10 * low)
