"""Settings that do not fit the task are rejected with the ones that do."""

from __future__ import annotations

import pytest

from job.config import Config, Evaluation, Training, task_settings
from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task
from job.errors import Refused

TWO, THREE = Task(SINGLE_LABEL, ("hate", "nothate")), Task(SINGLE_LABEL, ("a", "b", "c"))
TAGS, SCORE = Task(MULTI_LABEL, ("a", "b")), Task(REGRESSION, ("score",))


def refusal(config: Config, task: Task) -> str:
    with pytest.raises(Refused) as caught:
        task_settings.check(config, task)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("task", [TAGS, SCORE])
def test_label_smoothing_needs_one_class_per_row(task: Task) -> None:
    smoothed = Config(training=Training(label_smoothing_factor=0.1))
    assert refusal(smoothed, task) == f"--label_smoothing_factor 0.1 does not apply to {task.kind}: remove it"
    task_settings.check(smoothed, TWO)
    task_settings.check(Config(training=Training(do_train=False, label_smoothing_factor=0.1)), task)


@pytest.mark.parametrize(
    ("task", "best", "metrics", "message"),
    [
        (THREE, "f1", (), "choose one of loss, accuracy, correct, f1_macro, f1_weighted"),
        (TAGS, "f1", (), "choose one of loss, accuracy, correct, f1_micro, f1_macro"),
        (TAGS, "f1_weighted", (), "choose one of loss, accuracy, correct, f1_micro, f1_macro"),
        (SCORE, "accuracy", (), "choose one of loss, rmse, pearsonr, spearmanr"),
        (TWO, "rmse", (), "choose one of loss, accuracy, correct, f1_macro, f1_weighted, f1"),
        (TWO, "f1_micro", (), "choose one of loss, accuracy, correct, f1_macro, f1_weighted, f1"),
        (TWO, "eval_matthews_correlation", (), "f1; add --metrics accuracy f1 matthews_correlation"),
        (SCORE, "rmse", ("pearsonr",), "choose one of loss, pearsonr; add --metrics pearsonr rmse"),
    ],
)
def test_metric_for_best_model_must_fit_the_task(task: Task, best: str, metrics: tuple[str, ...], message: str) -> None:
    config = Config(evaluation=Evaluation(metrics=metrics, metric_for_best_model=best))
    assert refusal(config, task).endswith(message)
    task_settings.check(Config(config.model, config.data, Training(do_train=False), config.evaluation), task)


@pytest.mark.parametrize(
    ("task", "best", "metrics"),
    [(TWO, "f1", ()), (TWO, "eval_loss", ()), (TAGS, "eval_f1_micro", ()), (TWO, "own", ("/my/metric",))],
)
def test_known_and_custom_metrics_are_accepted_for_the_best_model(
    task: Task, best: str, metrics: tuple[str, ...]
) -> None:
    task_settings.check(Config(evaluation=Evaluation(metrics=metrics, metric_for_best_model=best)), task)


def test_f1_is_for_the_second_class_unless_another_is_positive() -> None:
    settings = Config(evaluation=Evaluation(positive_label="hate"))
    assert task_settings.positive_class(Config(), TWO) == 1
    assert task_settings.positive_class(settings, TWO) == 0
    assert task_settings.positive_class(Config(), THREE) is None
    assert task_settings.positive_class(Config(evaluation=Evaluation(metrics=("accuracy",))), TWO) is None


def test_an_unknown_or_unused_positive_label_is_rejected() -> None:
    settings = Config(evaluation=Evaluation(positive_label="hat"))
    assert refusal(settings, TWO) == "--positive_label hat is not a class: choose one of hate, nothate"
    for task in (THREE, TAGS, SCORE):
        assert "which is not computed for this task" in refusal(settings, task)
    unused = Config(evaluation=Evaluation(positive_label="hate", metrics=("accuracy",)))
    assert "which is not computed for this task" in refusal(unused, TWO)
