"""The built-in metrics: which task each fits, which numbers it gives, and in which direction they are better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from job.config.tasks import KINDS, MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind


@dataclass(frozen=True)
class Metric:
    """A folder of job/metrics.

    Attributes:
        name: of the folder.
        numbers: names of what it gives, for each kind of task that it fits.
        default_for: those of them for which it is computed where --metrics is unset.
        lower_is_better: of all its numbers.
    """

    name: str
    numbers: Mapping[Kind, tuple[str, ...]]
    default_for: tuple[Kind, ...]
    lower_is_better: bool = False


OF_TWO_CLASSES = "f1"
"""The number that is given for two classes only: it is about one of them, the positive one."""
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
    """The names of the metrics that are computed where --metrics is unset."""
    return tuple(metric.name for metric in METRICS.values() if kind in metric.default_for)


def numbers(names: Sequence[str], kinds: Sequence[Kind] = tuple(KINDS.values())) -> list[str]:
    """What those of these metrics that are ours give for these kinds of task."""
    given = (METRICS[name].numbers.get(kind, ()) for name in names if name in METRICS for kind in kinds)
    return list(dict.fromkeys(number for of_metric in given for number in of_metric))


LOWER_IS_BETTER = frozenset(
    {"loss", "mse", "mae", *numbers([metric.name for metric in METRICS.values() if metric.lower_is_better])}
)
"""Numbers of which less is better; mse and mae are names used by metrics from elsewhere."""


def as_computed(number: str) -> str:
    """The number of this name without the prefix that Transformers gives it, as in eval_accuracy."""
    return number.removeprefix("eval_")


def deciding_number(names: Sequence[str], kind: Kind) -> str:
    """The number that decides which model is best: the task's usual one where it is computed, else the first of the
    first metric, else the loss."""
    if not names or kind.usual_number in numbers(names, (kind,)):
        return kind.usual_number
    return next(iter(numbers(names[:1], (kind,))), "loss")
