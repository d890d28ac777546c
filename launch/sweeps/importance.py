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
    columns = {name: _comparable([row.runs[0].settings.get(name) for row in rows]) for name in names}
    distributions = {name: _distribution(values) for name, values in columns.items()}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    for number, row in enumerate(rows):
        settings = {name: values[number] for name, values in columns.items()}
        study.add_trial(optuna.create_trial(params=settings, distributions=distributions, value=row.mean))
    with contextlib.suppress(RuntimeError):  # raised if all scores are equal
        return get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {}


def _comparable(values: Sequence[Any]) -> list[Any]:
    """The values of a setting, as texts unless all are numbers: a value may be a mapping."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return list(values)
    return list(map(repr, values))


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if isinstance(values[0], str):
        return CategoricalDistribution(list(dict.fromkeys(values)))
    low, high = min(values), max(values)
    return FloatDistribution(low, high, log=low > 0 and high >= 10 * low)
