"""The built-in metrics: the tasks that each fits, its numbers, and whether lower or greater is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from job.config.tasks import KINDS, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind


@dataclass(frozen=True)
class Metric:
    """A folder of job/metrics.

    Attributes:
        name: of the folder.
        numbers: names of its numbers, for each kind of task that it fits.
        default_for: kinds of task for which it is computed if --metrics is unset.
        lower_is_better: whether lower values of its numbers are better.
    """

    name: str
    numbers: Mapping[Kind, tuple[str, ...]]
    default_for: tuple[Kind, ...]
    lower_is_better: bool = False


OF_TWO_CLASSES = "f1"
"""The number that is computed only for two classes, for the positive one."""
METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", dict.fromkeys((SINGLE_LABEL, MULTI_LABEL), ("accuracy", "correct")),
               (SINGLE_LABEL, MULTI_LABEL)),
        Metric("f1", {SINGLE_LABEL: ("f1_macro", "f1_weighted", OF_TWO_CLASSES), MULTI_LABEL: ("f1_micro", "f1_macro")},
               (SINGLE_LABEL, MULTI_LABEL)),
        Metric("matthews_correlation", {SINGLE_LABEL: ("matthews_correlation",)}, ()),
        Metric("rmse", {REGRESSION: ("rmse",)}, (REGRESSION,), lower_is_better=True),
        Metric("pearsonr", {REGRESSION: ("pearsonr",)}, (REGRESSION,)),
        Metric("spearmanr", {REGRESSION: ("spearmanr",)}, (REGRESSION,)),
    )
}  # fmt: skip


def fitting(kind: Kind) -> tuple[str, ...]:
    """The names of our metrics that fit a kind of task."""
    return tuple(metric.name for metric in METRICS.values() if kind in metric.numbers)


def defaults(kind: Kind) -> tuple[str, ...]:
    """The names of the metrics that are computed if --metrics is unset."""
    return tuple(metric.name for metric in METRICS.values() if kind in metric.default_for)


def numbers(names: Sequence[str], kinds: Sequence[Kind] = tuple(KINDS.values())) -> list[str]:
    """The numbers of the built-in ones among these metrics, for these kinds of task."""
    given = (METRICS[name].numbers.get(kind, ()) for name in names if name in METRICS for kind in kinds)
    return list(dict.fromkeys(number for of_metric in given for number in of_metric))


_LOWER_IS_BETTER = frozenset(
    {"mse", "mae", "mape", "smape", "mase", "brier_score",
     *numbers([metric.name for metric in METRICS.values() if metric.lower_is_better])}
)  # fmt: skip
"""Numbers that are better if lower, besides those named as losses and errors; most are names of other metrics."""


@dataclass(frozen=True)
class Deciding:
    """The number that decides which evaluation is the best, and its direction."""

    number: str
    lower_is_better: bool


def deciding(settings: Mapping[str, Any], kind: Kind | None) -> Deciding:
    """What decides by the settings of a run, as in config.yaml; `kind` is None if the task is not known.

    --metric_for_best_model, else the usual number for the task if it is computed, else the first number of the first
    metric, else the loss.
    """
    asked, greater = settings.get("metric_for_best_model"), settings.get("greater_is_better")
    number = as_computed(str(asked)) if asked else _usual(settings.get("metrics") or (), kind)
    return Deciding(number, lower_is_better(number) if greater is None else not greater)


def lower_is_better(number: str) -> bool:
    """Whether lower is better for a number: by its name, which ends in `loss` or `error`, or by the table.

    scikit-learn negates a loss or error whose name begins with `neg_`.
    """
    named = number.lower().endswith(("loss", "error")) and not number.startswith("neg_")
    return named or number in _LOWER_IS_BETTER


def as_computed(number: str) -> str:
    """The name of a number without Transformers' prefix, as in eval_accuracy."""
    return number.removeprefix("eval_")


def _usual(names: Sequence[str], kind: Kind | None) -> str:
    if kind is None:
        return "loss"
    if not names or kind.usual_number in numbers(names, (kind,)):
        return kind.usual_number
    return next(iter(numbers(names[:1], (kind,))), "loss")
