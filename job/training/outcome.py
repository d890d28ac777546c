"""The outcome of training or evaluation, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job.evaluation.prediction import Predictions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from job.model.lora import Adapter


@dataclass(frozen=True)
class Outcome:
    """The outcome of training or evaluation.

    Attributes:
        model: unwrapped, with the best weights.
        evaluated: predictions and scores of the best evaluation; None if there is only a test set.
        test: predictions and scores (none without labels) of the test set; None without one.
        best_step: optimizer steps before the best evaluation; 0 without training.
        train: the numbers under "train" in results.json; None without training.
        adapter: the trained adapter, if it has been merged into the model.
    """

    model: PreTrainedModel
    evaluated: tuple[Predictions, Mapping[str, float]] | None
    test: tuple[Predictions, Mapping[str, float]] | None = None
    best_step: int = 0
    train: Mapping[str, Any] | None = None
    adapter: Adapter | None = None
