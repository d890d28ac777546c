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


def test_only_losses_and_errors_are_better_when_lower() -> None:
    assert {"loss", "mse", "rmse", "mae"} == metrics.LOWER_IS_BETTER
