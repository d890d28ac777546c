"""The best evaluation, with scores made by hand."""

import math

import pytest

from job.config import Evaluation
from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind
from job.errors import Refused
from job.training.best_model import Selection, selection


def taken(chosen: Selection, values: list[float]) -> list[bool]:
    return [chosen.take({"x": value}, step) for step, value in enumerate(values, 1)]


@pytest.mark.parametrize(
    ("greater", "values", "best", "best_step"),
    [
        (True, [0.1, 0.3, 0.2], [True, True, False], 2),
        (False, [0.3, 0.1, 0.2], [True, True, False], 2),
        (True, [0.2, 0.2], [True, False], 1),
        (False, [0.2, 0.2], [True, False], 1),
        (True, [-1.0, -2.0], [True, False], 1),
        (True, [0.0, -0.5], [True, False], 1),
        (True, [math.nan, 0.5, math.nan], [True, True, False], 2),
        (False, [math.nan, 0.5, math.nan], [True, True, False], 2),
    ],
)
def test_the_best_score_wins_and_the_first_of_equal_scores(
    greater: bool, values: list[float], best: list[bool], best_step: int
) -> None:
    chosen = Selection("x", greater, None)
    assert taken(chosen, values) == best
    assert (chosen.best, chosen.best_step) == (values[best_step - 1], best_step)
    assert not chosen.should_stop


def test_patience_counts_evaluations_in_a_row_without_a_new_best() -> None:
    chosen, stops = Selection("x", True, 2), []
    for step, value in enumerate([1, 0, 2, 2, 1], 1):
        chosen.take({"x": value}, step)
        stops.append(chosen.should_stop)
    assert stops == [False, False, False, False, True]


@pytest.mark.parametrize(
    ("metric", "given", "greater"),
    [
        ("accuracy", None, True),
        ("f1_macro", None, True),
        ("loss", None, False),
        ("rmse", None, False),
        ("log_loss", None, False),
        ("mean_absolute_error", None, False),
        ("hamming_loss", True, True),
        ("loss", True, True),
        ("accuracy", False, False),
    ],
)
def test_the_direction_is_as_given_or_lower_for_losses_and_errors(
    metric: str, given: bool | None, greater: bool
) -> None:
    made = selection(
        Evaluation(metric_for_best_model=metric, greater_is_better=given, early_stopping_patience=3), SINGLE_LABEL
    )
    assert made == Selection(metric, greater, 3)


def test_an_unknown_metric_for_best_model_is_rejected_with_the_known_ones() -> None:
    with pytest.raises(Refused) as caught:
        Selection("f2", True, None).take({"loss": 1.0, "accuracy": 0.5}, 1)
    assert str(caught.value) == "--metric_for_best_model f2 is not computed: choose one of loss, accuracy"


@pytest.mark.parametrize(
    ("metrics", "kind", "chosen"),
    [
        ((), SINGLE_LABEL, "accuracy"),
        ((), MULTI_LABEL, "f1_micro"),
        ((), REGRESSION, "rmse"),
        (("f1", "accuracy"), SINGLE_LABEL, "accuracy"),
        (("matthews_correlation",), SINGLE_LABEL, "matthews_correlation"),
        (("pearsonr",), REGRESSION, "pearsonr"),
        (("/some/folder",), SINGLE_LABEL, "loss"),
    ],
)
def test_metric_for_best_model_is_one_that_is_computed(metrics: tuple[str, ...], kind: Kind, chosen: str) -> None:
    assert selection(Evaluation(metrics=metrics), kind).metric == chosen


def test_nan_is_never_best_and_the_newest_is_kept_until_there_is_a_score() -> None:
    chosen, seen = Selection("x", True, 3), []
    for step, value in enumerate([math.nan, math.nan, 0.1, math.nan, 0.2], 1):
        seen.append((chosen.take({"x": value}, step), chosen.has_best, chosen.best_step))
    assert seen == [(True, False, 1), (True, False, 2), (True, True, 3), (False, True, 3), (True, True, 5)]


def test_nan_counts_as_no_new_best() -> None:
    chosen = Selection("x", False, 2)
    for step in (1, 2):
        chosen.take({"x": math.nan}, step)
    assert chosen.should_stop


def test_a_metric_may_have_the_prefix_of_transformers() -> None:
    assert selection(Evaluation(metric_for_best_model="eval_accuracy"), SINGLE_LABEL) == Selection(
        "accuracy", True, None
    )
    assert selection(Evaluation(metric_for_best_model="eval_loss"), SINGLE_LABEL) == Selection("loss", False, None)
