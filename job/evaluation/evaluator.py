"""Evaluation of a split: exact predictions on all processes, scores on the main one, told to all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator

from job import distributed
from job.batching.forms import Form
from job.config import Config
from job.config.metrics import METRICS
from job.config.tasks import Kind
from job.data.dataset import Split
from job.errors import Refused
from job.evaluation import metrics
from job.evaluation.prediction import Predictions, predict


def max_tokens(asked: int | None, accelerator: Accelerator, cpu: int, gpu: int, lengths: Any) -> int:
    """Tokens per forward pass: as asked, else by device; never less than the longest example."""
    longest = int(lengths.max())
    if asked is not None and asked < longest:
        raise Refused(
            f"an example has {longest} tokens: raise --max_tokens_per_device {asked} or lower --max_seq_length"
        )
    return asked or max(cpu if accelerator.device.type == "cpu" else gpu, longest)


class Evaluator:
    """Predictions and scores of a split; the scores are computed on the main process and told to all."""

    def __init__(
        self,
        config: Config,
        model: torch.nn.Module,
        form: Form,
        kind: Kind,
        accelerator: Accelerator,
        between: Callable[[], object],
    ) -> None:
        self._model, self._form, self._kind, self._accelerator = model, form, kind, accelerator
        self._between = between
        self._asked = config.evaluation.eval_max_tokens_per_device
        self._names = metrics.chosen(config.evaluation.metrics, kind)
        self._metrics: dict[str, Any] = {}
        if not set(self._names) <= set(METRICS):  # a foreign one may not be there
            distributed.from_main(accelerator, self._load_metrics)

    def __call__(self, split: Split) -> tuple[Predictions, dict[str, float]]:
        """The scores are empty for a split without labels."""
        batch, shape = self._form.collate(split), self._form.shape
        limit = max_tokens(self._asked, self._accelerator, 4096, 65536, split.computed)
        predictions = predict(self._model, self._kind, split, batch, self._accelerator, limit, shape, self._between)
        if split.labels is None:
            return predictions, {}
        return predictions, distributed.from_main(self._accelerator, lambda: self._scores(predictions))

    def _load_metrics(self) -> None:
        self._metrics = metrics.load(self._names, self._kind)

    def _scores(self, predictions: Predictions) -> dict[str, float]:
        if not self._metrics:  # `evaluate` takes seconds to import: not before it is needed
            self._load_metrics()
        return metrics.scores(predictions, self._metrics)
