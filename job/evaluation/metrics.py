"""Scores of an evaluation: built-in (job/metrics) or other `evaluate` modules, and per-class scores."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from job.config.tasks import MULTI_LABEL, Kind, Task
from job.errors import Refused
from job.evaluation.prediction import Predictions
from job.runtime import package

FOLDER = package.JOB / "metrics"
METRIC_FAILS = (OSError, ImportError, SyntaxError, ValueError, TypeError, AttributeError, LookupError)
"""What may be raised when a metric is loaded: its name can be that of any folder, file or repository."""

TAKEN = ("loss", "step", "epoch", "split", "best", "examples", "per_class", "confusion_matrix")
"""Keys of an evaluation in metrics.jsonl or results.json that do not come from a metric."""


def load(names: Sequence[str], kind: Kind) -> dict[str, Any]:
    """Load `evaluate` modules: built-in ones by name, others by folder or hub name.

    Raises:
        Refused: a metric does not exist.
    """
    import evaluate

    configuration = "multilabel" if kind == MULTI_LABEL else None
    loaded = {}
    for name in names:
        own = FOLDER / name / f"{name}.py"
        try:
            loaded[name] = evaluate.load(str(own) if own.is_file() else name, configuration)
        except METRIC_FAILS as error:
            builtin = ", ".join(sorted(path.name for path in FOLDER.iterdir() if (path / f"{path.name}.py").is_file()))
            raise Refused(f"--metrics {name} cannot be loaded ({' '.join(str(error).split())[:120]}): use {builtin}, "
                          "or the folder of an `evaluate` module") from error  # fmt: skip
    return loaded


def numbers_given(metrics: Mapping[str, Any], task: Task) -> list[str]:
    """The names of the loss and of all numbers that the metrics return, from computing them on artificial rows.

    Raises:
        Refused: a metric cannot be computed, does not return numbers, or returns one whose name is taken.
    """
    owners: dict[str, str] = {}
    for name, metric in metrics.items():
        try:
            computed = _numbers(_artificial(task), metric)
        except Exception as error:  # a metric is arbitrary code
            raise Refused(f"--metrics {name} cannot be computed for this task ({task}): "
                          f"{' '.join(str(error).split())[:200] or type(error).__name__}") from error  # fmt: skip
        for number in computed:
            _refuse_taken(number, name, owners)
        owners |= dict.fromkeys(computed, name)
    return ["loss", *owners]


def _refuse_taken(number: str, name: str, owners: Mapping[str, str]) -> None:
    """Refused for a number that would overwrite another one in the results; `owners`: number -> its metric."""
    if number in owners:
        raise Refused(f"--metrics {name} gives {number}, as --metrics {owners[number]} does: remove one of the two, or "
                      "rename its number")  # fmt: skip
    if number in TAKEN:
        raise Refused(
            f"--metrics {name} gives a number named {number}, a name that the results use themselves: rename it"
        )


def _artificial(task: Task) -> Predictions:
    """Two rows of each class, one of them predicted wrongly; four different numbers for regression."""
    if not task.kind.has_classes:
        numbers = np.array([0.0, 1.0, 3.0, 2.0])
        return Predictions(task.kind, np.arange(4), (numbers[:, None] ** 2).astype(np.float32), numbers)
    one_each = np.eye(len(task.names), dtype=np.int8)
    rows = np.concatenate([one_each, one_each if task.kind.one_label else 1 - one_each])
    logits = 2 * rows.astype(np.float32) - 1
    logits[0] = np.roll(logits[0], 1) if task.kind.one_label else -logits[0]
    labels = rows.argmax(axis=1) if task.kind.one_label else rows
    return Predictions(task.kind, np.arange(len(rows)), logits, labels)


def scores(predictions: Predictions, metrics: Mapping[str, Any], positive: int | None = None) -> dict[str, float]:
    """The loss and all numbers that the metrics return; integers stay integers.

    A number that is undefined for these rows, such as the correlation of one row, is NaN. `positive` is the positive
    class of f1; None: the second of two.
    """
    computed: dict[str, float] = {"loss": predictions.loss}
    for metric in metrics.values():
        computed |= _numbers(predictions, metric, positive)
    return computed


def _numbers(predictions: Predictions, metric: Any, positive: int | None = None) -> dict[str, float]:
    options = {"labels": list(range(predictions.logits.shape[1])), "positive": 1 if positive is None else positive}
    accepted = inspect.signature(metric._compute).parameters
    options = {name: value for name, value in options.items() if name in accepted}
    computed = metric.compute(predictions=predictions.predicted, references=predictions.labels, **options)
    return {name: value if isinstance(value, int) else float(value) for name, value in computed.items()}


def per_class(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """Precision, recall, F1 and support of each class; {} for regression.

    For single labels also the confusion matrix (rows: label, columns: prediction).
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    if not predictions.kind.has_classes:
        return {}
    numbers = list(range(len(names)))
    # scikit-learn takes a single column of 0 and 1 for two classes; ours is the second.
    counted = [1] if not predictions.kind.one_label and len(names) == 1 else numbers
    table = precision_recall_fscore_support(predictions.labels, predictions.predicted, labels=counted, zero_division=0)
    precision, recall, f1, support = (column.tolist() for column in table)
    rows = {
        name: {"precision": precision[i], "recall": recall[i], "f1": f1[i], "support": support[i]}
        for i, name in enumerate(names)
    }
    if not predictions.kind.one_label:
        return {"per_class": rows}
    matrix = confusion_matrix(predictions.labels, predictions.predicted, labels=numbers)
    return {"per_class": rows, "confusion_matrix": matrix.tolist()}
