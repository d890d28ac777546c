"""Scores of an evaluation: `evaluate` modules, ours (job/metrics) or others, and per-class scores."""

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
"""What finding and importing a metric's module may raise: it can be any name, folder or file."""


def load(names: Sequence[str], kind: Kind) -> dict[str, Any]:
    """The `evaluate` modules of these names: ours by name, any other by folder or hub name.

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
            there = ", ".join(sorted(path.name for path in FOLDER.iterdir() if (path / f"{path.name}.py").is_file()))
            raise Refused(f"--metrics {name} cannot be loaded ({' '.join(str(error).split())[:120]}): use {there}, or "
                          "the folder of an `evaluate` module") from error  # fmt: skip
    return loaded


def numbers_given(metrics: Mapping[str, Any], task: Task) -> list[str]:
    """The names of the loss and of the metrics' numbers, found by computing them on made-up rows of the task.

    Raises:
        Refused: a metric cannot be computed, or does not return numbers.
    """
    computed: dict[str, float] = {}
    for name, metric in metrics.items():
        try:
            computed |= scores(_made_up(task), {name: metric})
        except Exception as error:  # a metric is arbitrary code
            raise Refused(f"--metrics {name} cannot be computed for this task ({task}): "
                          f"{' '.join(str(error).split())[:200] or type(error).__name__}") from error  # fmt: skip
    return list(computed)


def _made_up(task: Task) -> Predictions:
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
    """The loss and every number of the metrics; integers stay integers.

    A number that is undefined for these rows, such as the correlation of one row, is NaN. `positive` is the positive
    class of f1; None: the second of two.
    """
    found: dict[str, float] = {"loss": predictions.loss}
    for metric in metrics.values():
        known = {"labels": list(range(predictions.logits.shape[1])), "positive": 1 if positive is None else positive}
        taken = inspect.signature(metric._compute).parameters
        options = {name: value for name, value in known.items() if name in taken}
        computed = metric.compute(predictions=predictions.answers, references=predictions.labels, **options)
        found.update({name: value if isinstance(value, int) else float(value) for name, value in computed.items()})
    return found


def per_class(predictions: Predictions, names: Sequence[str]) -> dict[str, Any]:
    """Per-class precision, recall, F1 and support; for single labels the confusion matrix (rows: label, columns:
    prediction). Nothing for regression."""
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    if not predictions.kind.has_classes:
        return {}
    numbers = list(range(len(names)))
    table = precision_recall_fscore_support(predictions.labels, predictions.answers, labels=numbers, zero_division=0)
    precision, recall, f1, support = (column.tolist() for column in table)
    rows = {
        name: {"precision": precision[i], "recall": recall[i], "f1": f1[i], "support": support[i]}
        for i, name in enumerate(names)
    }
    if not predictions.kind.one_label:
        return {"per_class": rows}
    matrix = confusion_matrix(predictions.labels, predictions.answers, labels=numbers)
    return {"per_class": rows, "confusion_matrix": matrix.tolist()}
