"""The metrics that come along: which task each fits, which numbers it gives, and in which direction they are better."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind


@dataclass(frozen=True)
class Metric:
    """A folder of job/metrics.

    Attributes:
        name: of the folder.
        numbers: names of what it gives, over all kinds of task: `f1` itself is given for two classes only, `f1_micro`
            for several labels a row only.
        kinds: the kinds of task that it fits.
        default_for: those of them for which it is computed where --metrics is unset.
        lower_is_better: of all its numbers.
    """

    name: str
    numbers: tuple[str, ...]
    kinds: tuple[Kind, ...]
    default_for: tuple[Kind, ...]
    lower_is_better: bool = False


METRICS = {
    metric.name: metric
    for metric in (
        Metric("accuracy", ("accuracy", "correct"), (SINGLE_LABEL, MULTI_LABEL), (SINGLE_LABEL, MULTI_LABEL)),
        Metric("f1", ("f1_macro", "f1_weighted", "f1_micro", "f1"), (SINGLE_LABEL, MULTI_LABEL),
               (SINGLE_LABEL, MULTI_LABEL)),
        Metric("matthews_correlation", ("matthews_correlation",), (SINGLE_LABEL,), ()),
        Metric("rmse", ("rmse",), (REGRESSION,), (REGRESSION,), lower_is_better=True),
        Metric("pearsonr", ("pearsonr",), (REGRESSION,), (REGRESSION,)),
        Metric("spearmanr", ("spearmanr",), (REGRESSION,), (REGRESSION,)),
    )
}  # fmt: skip
LOWER_IS_BETTER = frozenset(
    {"loss", "mse", "mae", *(number for m in METRICS.values() if m.lower_is_better for number in m.numbers)}
)
"""Numbers of which less is better; mse and mae are what foreign metrics call theirs."""


def fitting(kind: Kind) -> tuple[str, ...]:
    """The names of our metrics that fit a kind of task."""
    return tuple(metric.name for metric in METRICS.values() if kind in metric.kinds)


def defaults(kind: Kind) -> tuple[str, ...]:
    """The names of the metrics that are computed where --metrics is unset."""
    return tuple(metric.name for metric in METRICS.values() if kind in metric.default_for)


def numbers(names: Sequence[str], foreign: tuple[str, ...] = ()) -> list[str]:
    """What the metrics of these names give; `foreign` in place of the numbers of one that is not ours."""
    return [number for name in names for number in (METRICS[name].numbers if name in METRICS else foreign)]


def deciding_number(names: Sequence[str], kind: Kind) -> str:
    """The number that decides which model is best: the task's usual one where it is computed, else the first of the
    first metric, else the loss."""
    if not names or kind.usual_number in numbers(names):
        return kind.usual_number
    return numbers(names[:1], ("loss",))[0]
