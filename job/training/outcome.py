"""What training or evaluation came to, for the report."""

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
    """What training or evaluation came to.

    Attributes:
        model: unwrapped, with the best weights.
        evaluated: predictions and scores of the best evaluation; None where the test set is all there is.
        test: predictions and scores (none without labels) of the test set; None without one.
        best_step: optimizer steps before the best evaluation; 0 where nothing was trained.
        train: numbers of results.json's "train"; None where nothing was trained.
        adapter: what was trained, where it has been merged into the model.
    """

    model: PreTrainedModel
    evaluated: tuple[Predictions, Mapping[str, float]] | None
    test: tuple[Predictions, Mapping[str, float]] | None = None
    best_step: int = 0
    train: Mapping[str, Any] | None = None
    adapter: Adapter | None = None
