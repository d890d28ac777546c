"""What training minimises: the loss of a global batch, and what its sum over the rows is divided by.

Without class weights that is the number of rows. With them a row counts as much as its class: the loss is the sum of
w * loss over the sum of w, both over the global batch, which is the weighted mean of torch's cross_entropy. The sum of
w follows from the labels, which every process has, so nothing is exchanged for it. Divided by the sum over each
process's own rows, the gradient would depend on which rows are dealt together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from job.config import Training
from job.config.class_weights import BALANCED
from job.config.tasks import Task
from job.data.dataset import Split
from job.errors import Refused
from job.model.outputs import outputs_of

ExampleLosses = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(logits float32[b, C], labels) -> float32[b], the loss of each example, times the weight of its class."""
LISTED_CLASSES = 10


@dataclass(frozen=True)
class Objective:
    """The loss of a global batch.

    Attributes:
        losses: of the rows of a micro-batch.
        class_weights: float32[C]; None where all rows count alike.
        labels: int64[n], classes of the training set; used with class weights only.
    """

    losses: ExampleLosses
    class_weights: np.ndarray | None = None
    labels: np.ndarray | None = None

    def divisor(self, examples: np.ndarray) -> float:
        """What the summed losses of these examples, a global batch, are divided by."""
        if self.class_weights is None or self.labels is None:
            return len(examples)
        return float(self.class_weights[self.labels[examples]].sum(dtype=np.float64))

    def describe(self, names: tuple[str, ...]) -> Mapping[str, float]:
        """The weight of each class by its name; {} without weights."""
        return {} if self.class_weights is None else dict(zip(names, self.class_weights.tolist(), strict=True))


def objective(task: Task, training: Training, train: Split, device: torch.device) -> Objective:
    """As configured, for the rows that are trained on."""
    losses, smoothing = outputs_of(task.kind).training_losses, training.label_smoothing_factor
    if training.class_weights is None:
        return Objective(lambda logits, labels: losses(logits, labels, smoothing, None))
    assert train.labels is not None
    weights = of_classes(training.class_weights, task.names, train.labels)
    on_device = torch.from_numpy(weights).to(device)
    return Objective(lambda logits, labels: losses(logits, labels, smoothing, on_device), weights, train.labels)


def of_classes(asked: str | Mapping[str, float], names: tuple[str, ...], labels: np.ndarray) -> np.ndarray:
    """float32[C], the weight of each class.

    `balanced` is scikit-learn's compute_class_weight: rows / (classes * rows of the class), of the classes that have
    rows; it gives the same total to each class (King and Zeng, 2001). A class without rows has weight 0.
    """
    if asked != BALANCED:
        assert not isinstance(asked, str)
        return np.array([asked[name] for name in names], dtype=np.float32)
    counts = np.bincount(labels, minlength=len(names))
    weights = np.zeros(len(names), dtype=np.float64)
    weights[counts > 0] = len(labels) / ((counts > 0).sum() * counts[counts > 0])
    return weights.astype(np.float32)


def reject_weightless(wanted: Objective, batches: Iterable[np.ndarray], names: tuple[str, ...]) -> None:
    """Refused if a global batch has no row of a class above 0; looked for only where there is a class of weight 0."""
    if wanted.class_weights is None or wanted.class_weights.all():
        return
    for step, examples in enumerate(batches):
        if wanted.divisor(examples) == 0:
            zero = ", ".join(name for name, weight in wanted.describe(names).items() if not weight)
            raise Refused(f"--class_weights: all rows of step {step + 1} have weight 0 ({zero}), and no loss is left: "
                          "give these classes more, or raise --train_batch_size")  # fmt: skip


def in_words(weights: Mapping[str, Any]) -> str:
    """For the log: each class, or the extremes of many."""
    shown = [f"{name} {weight:.4g}" for name, weight in sorted(weights.items(), key=lambda item: item[1])]
    if len(shown) <= LISTED_CLASSES:
        return ", ".join(shown)
    return f"{shown[0]}, {shown[1]}, ... {shown[-2]}, {shown[-1]}"
