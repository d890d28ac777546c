"""Settings that fit only some tasks: checked as soon as the labels are known, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from job.config import class_weights, metrics
from job.config.metrics import METRICS, OF_TWO_CLASSES
from job.config.settings import Config
from job.config.tasks import SINGLE_LABEL, Task
from job.errors import Refused


def check(config: Config, task: Task) -> None:
    """Refused for a setting that does not apply to the task."""
    if config.training.do_train and config.training.label_smoothing_factor and task.kind != SINGLE_LABEL:
        raise Refused(f"--label_smoothing_factor {config.training.label_smoothing_factor} does not apply to "
                      f"{task.kind}: remove it")  # fmt: skip
    if config.training.do_train:
        class_weights.check_task(config.training.class_weights, task)
    if config.run.top_k is not None and not task.kind.has_classes:
        raise Refused("--top_k does not apply to regression, which has no classes: remove it")
    computed_metrics(config, task)
    _check_known_number(config, task)
    positive_class(config, task)


def computed_metrics(config: Config, task: Task) -> tuple[str, ...]:
    """Names of the metrics to compute: as configured, else the usual ones for the task.

    Raises:
        Refused: a built-in metric does not fit the task.
    """
    for name in config.evaluation.metrics:
        if name in METRICS and task.kind not in METRICS[name].numbers:
            fitting = metrics.fitting(task.kind)
            raise Refused(f"--metrics {name} does not fit {task.kind}: use {', '.join(fitting)}")
    return config.evaluation.metrics or metrics.defaults(task.kind)


def positive_class(config: Config, task: Task) -> int | None:
    """The index of the positive class of f1: --positive_label or the second one; None if f1 is not computed.

    Raises:
        Refused: --positive_label is not a class or would have no effect.
    """
    asked = config.evaluation.positive_label
    has_f1 = task.kind == SINGLE_LABEL and len(task.names) == 2 and "f1" in computed_metrics(config, task)
    if asked is None:
        return 1 if has_f1 else None
    if not has_f1:
        raise Refused(f"--positive_label {asked} needs the metric f1 of two classes, which is not computed for this "
                      f"task ({task}): remove it")  # fmt: skip
    if asked not in task.names:
        raise Refused(f"--positive_label {asked} is not a class: choose one of {', '.join(task.names)}")
    return task.names.index(asked)


def check_best_number(config: Config, task: Task, given: Sequence[str]) -> None:
    """Refused if --metric_for_best_model is not among the numbers of the metrics."""
    asked = config.evaluation.metric_for_best_model
    if asked is None or not config.training.do_train or metrics.as_computed(asked) in given:
        return
    names = computed_metrics(config, task)
    owner = next((m for m in metrics.fitting(task.kind) if metrics.as_computed(asked) in METRICS[m].numbers[task.kind]
                  and m not in names), None)  # fmt: skip
    remedy = f"; add --metrics {' '.join((*names, owner))}" if owner else ""
    raise Refused(f"--metric_for_best_model {asked} is not computed for this task ({task}): choose one of "
                  f"{', '.join(given)}{remedy}")  # fmt: skip


def _check_known_number(config: Config, task: Task) -> None:
    """The numbers of built-in metrics are known here; those of other metrics only once they have been computed."""
    names = computed_metrics(config, task)
    if set(names) <= METRICS.keys():
        two = task.kind == SINGLE_LABEL and len(task.names) == 2
        given = (n for n in metrics.numbers(names, (task.kind,)) if two or n != OF_TWO_CLASSES)
        check_best_number(config, task, ["loss", *given])
