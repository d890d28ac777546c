"""The training objective: the loss of a global batch, and the divisor of its sum over the rows.

Without class weights the divisor is the number of rows. With class weights w the loss is sum(w * loss) / sum(w) over
the global batch, which is the weighted mean of torch's cross_entropy. Every process has all labels, so sum(w) needs no
communication. If each process divided by the sum of its own rows, the gradient would depend on how rows are
distributed.
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
"""(logits float32[b, C], labels) -> float32[b], the loss of each example times the weight of its class."""
LISTED_CLASSES = 10


@dataclass(frozen=True)
class Objective:
    """The loss of a global batch.

    Attributes:
        losses: computes the losses of a micro-batch.
        class_weights: float32[C]; None if all rows have the same weight.
        labels: int64[n], the labels of the training set; needed for class weights only.
    """

    losses: ExampleLosses
    class_weights: np.ndarray | None = None
    labels: np.ndarray | None = None

    def divisor(self, examples: np.ndarray) -> float:
        """The divisor of the summed losses of a global batch, which consists of these examples."""
        if self.class_weights is None or self.labels is None:
            return len(examples)
        return float(self.class_weights[self.labels[examples]].sum(dtype=np.float64))

    def describe(self, names: tuple[str, ...]) -> Mapping[str, float]:
        """Class name -> weight; {} without class weights."""
        return {} if self.class_weights is None else dict(zip(names, self.class_weights.tolist(), strict=True))


def objective(task: Task, training: Training, train: Split, device: torch.device) -> Objective:
    """The configured objective for this training set."""
    losses, smoothing = outputs_of(task.kind).training_losses, training.label_smoothing_factor
    if training.class_weights is None:
        return Objective(lambda logits, labels: losses(logits, labels, smoothing, None))
    assert train.labels is not None
    weights = of_classes(training.class_weights, task.names, train.labels)
    on_device = torch.from_numpy(weights).to(device)
    return Objective(lambda logits, labels: losses(logits, labels, smoothing, on_device), weights, train.labels)


def of_classes(setting: str | Mapping[str, float], names: tuple[str, ...], labels: np.ndarray) -> np.ndarray:
    """float32[C], the weight of each class.

    `balanced` is computed as in scikit-learn's compute_class_weight, over the classes that have rows:
    rows / (classes * rows of the class). Each class then has the same total weight (King and Zeng, 2001). A class
    without rows has weight 0.
    """
    if setting != BALANCED:
        assert not isinstance(setting, str)
        return np.array([setting[name] for name in names], dtype=np.float32)
    counts = np.bincount(labels, minlength=len(names))
    weights = np.zeros(len(names), dtype=np.float64)
    weights[counts > 0] = len(labels) / ((counts > 0).sum() * counts[counts > 0])
    return weights.astype(np.float32)


def refuse_weightless(objective: Objective, batches: Iterable[np.ndarray], names: tuple[str, ...]) -> None:
    """Refused if all rows of a global batch have weight 0."""
    if objective.class_weights is None or objective.class_weights.all():
        return
    for step, examples in enumerate(batches):
        if objective.divisor(examples) == 0:
            zero = ", ".join(name for name, weight in objective.describe(names).items() if not weight)
            raise Refused(f"--class_weights: all rows of step {step + 1} have weight 0 ({zero}), and no loss is left: "
                          "give these classes more, or raise --train_batch_size")  # fmt: skip


def in_words(weights: Mapping[str, Any]) -> str:
    """The weights for the log: all, or only the smallest and largest if there are many classes."""
    shown = [f"{name} {weight:.4g}" for name, weight in sorted(weights.items(), key=lambda item: item[1])]
    if len(shown) <= LISTED_CLASSES:
        return ", ".join(shown)
    return f"{shown[0]}, {shown[1]}, ... {shown[-2]}, {shown[-1]}"
