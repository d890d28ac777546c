"""The table of metrics lists job/metrics, and every task has a default metric_for_best_model."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.config import metrics
from job.config.tasks import KINDS, Kind

FOLDER = Path(metrics.__file__).parents[1] / "metrics"


def test_the_table_names_every_folder_of_metrics() -> None:
    assert {path.parent.name for path in FOLDER.glob("*/*.py")} == set(metrics.METRICS)


@pytest.mark.parametrize("kind", KINDS.values(), ids=str)
def test_the_default_metric_for_best_model_is_among_the_default_metrics(kind: Kind) -> None:
    assert kind.usual_number in metrics.numbers(metrics.defaults(kind))
    assert set(metrics.defaults(kind)) <= set(metrics.fitting(kind))


@pytest.mark.parametrize(
    "number",
    ["loss", "mse", "rmse", "mae", "log_loss", "hamming_loss", "zero_one_loss", "mean_absolute_error", "max_error",
     "brier_score", "mape"],
)  # fmt: skip
def test_lower_is_better_for_losses_and_errors(number: str) -> None:
    assert metrics.lower_is_better(number)


@pytest.mark.parametrize(
    "number", ["neg_log_loss", "neg_mean_squared_error", "error_free", "furthest",
               *metrics.numbers([name for name in metrics.METRICS if name != "rmse"])]
)  # fmt: skip
def test_greater_is_better_for_all_else(number: str) -> None:
    assert not metrics.lower_is_better(number)
