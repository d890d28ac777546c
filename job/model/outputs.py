"""Loss in training, and predictions, probabilities and loss in evaluation, computed from logits for each kind of task.

Evaluation is computed with numpy in float64, from the logits of all examples at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.special import log_expit, log_softmax

from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind


@dataclass(frozen=True)
class Outputs:
    """The functions of one kind of task. C: classes; 1 for regression.

    Attributes:
        training_losses: (logits float32[b, C], labels, label smoothing, weight float32[C] of each class or None) ->
            float32[b], the loss of each example.
        predicted: logits float32[n, C] -> the predicted classes or numbers, in the form of the labels.
        probabilities: logits float32[n, C] -> float32[n, C]; [n, 0] for regression.
        mean_loss: (logits float32[n, C], labels) -> the mean loss over the examples.
    """

    training_losses: Callable[[torch.Tensor, torch.Tensor, float, torch.Tensor | None], torch.Tensor]
    predicted: Callable[[np.ndarray], np.ndarray]
    probabilities: Callable[[np.ndarray], np.ndarray]
    mean_loss: Callable[[np.ndarray, np.ndarray], float]


def outputs_of(kind: Kind) -> Outputs:
    """The functions of this kind of task."""
    return _OUTPUTS[kind]


# ---------------------------------------------------------------------------------------------------------------------
# One of several classes: cross-entropy in nats; among equally probable classes, the one with the lowest number wins


def _cross_entropies(
    logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float, weights: torch.Tensor | None
) -> torch.Tensor:
    return F.cross_entropy(logits, labels, weights, reduction="none", label_smoothing=label_smoothing)


def _most_probable(logits: np.ndarray) -> np.ndarray:
    return logits.argmax(axis=1)


def _softmax(logits: np.ndarray) -> np.ndarray:
    return np.exp(log_softmax(logits.astype(np.float64), axis=1)).astype(np.float32)


def _mean_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(-log_softmax(logits.astype(np.float64), axis=1)[np.arange(len(labels)), labels].mean())


# ---------------------------------------------------------------------------------------------------------------------
# Any of several classes: mean binary cross-entropy of the classes; predicted are classes with probability >= 0.5


def _binary_cross_entropies(logits: torch.Tensor, labels: torch.Tensor, *_: object) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=1)


def _probable(logits: np.ndarray) -> np.ndarray:
    return (logits >= 0).astype(np.int8)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    return np.exp(log_expit(logits.astype(np.float64))).astype(np.float32)


def _mean_binary_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    exact = logits.astype(np.float64)
    return float(-np.where(labels == 1, log_expit(exact), log_expit(-exact)).mean())


# ---------------------------------------------------------------------------------------------------------------------
# Regression: squared error


def _squared_errors(logits: torch.Tensor, labels: torch.Tensor, *_: object) -> torch.Tensor:
    return (logits[:, 0] - labels) ** 2


def _predicted_number(logits: np.ndarray) -> np.ndarray:
    return logits[:, 0].astype(np.float64)


def _no_probabilities(logits: np.ndarray) -> np.ndarray:
    return np.empty((len(logits), 0), dtype=np.float32)


def _mean_squared_error(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(((_predicted_number(logits) - labels) ** 2).mean())


_OUTPUTS = {
    SINGLE_LABEL: Outputs(_cross_entropies, _most_probable, _softmax, _mean_cross_entropy),
    MULTI_LABEL: Outputs(_binary_cross_entropies, _probable, _sigmoid, _mean_binary_cross_entropy),
    REGRESSION: Outputs(_squared_errors, _predicted_number, _no_probabilities, _mean_squared_error),
}
