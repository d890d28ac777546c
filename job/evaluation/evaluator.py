"""Evaluates a split: all processes predict, the main process computes the scores and broadcasts them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch

from job import distributed
from job.batching import oom
from job.batching.forms import Form
from job.batching.loader import BatchLoader
from job.config import task_settings
from job.config.metrics import METRICS
from job.config.tasks import Task
from job.data.dataset import Split
from job.evaluation import metrics
from job.evaluation.prediction import Predictions, predict
from job.run.context import RunContext
from job.runtime import console

DEFAULT_TOKENS = {"cpu": 4096, "gpu": 65536}
"""Tokens per forward pass if --eval_max_tokens_per_device is unset."""


class Evaluator:
    """Computes predictions and scores of a split."""

    def __init__(
        self, context: RunContext, model: torch.nn.Module, form: Form, task: Task, between: Callable[[], object]
    ) -> None:
        """`between` is called before each micro-batch, by every process the same number of times."""
        self._model, self._form, self._between = model, form, between
        self._accelerator = context.accelerator
        self._token_setting = context.config.evaluation.eval_max_tokens_per_device
        self._config, self._task = context.config, task
        self._names = task_settings.computed_metrics(context.config, task)
        self._positive = task_settings.positive_class(context.config, task)
        self._limit = sys.maxsize
        self._metrics: dict[str, Any] = {}
        if not set(self._names) <= set(METRICS):
            distributed.broadcast_from_main(self._accelerator, self._load_foreign_metrics)

    def __call__(self, split: Split) -> tuple[Predictions, dict[str, float]]:
        """Predictions and scores; the scores are {} for a split without labels."""
        loader = BatchLoader(split, self._form, self._accelerator)
        limit = loader.token_limit(self._token_setting, DEFAULT_TOKENS[distributed.device_class(self._accelerator)])
        limit = min(limit, max(self._limit, loader.longest))
        with console.notice(f"evaluating {len(split)} examples"):
            predictions, self._limit = oom.fitting(
                lambda limit: predict(self._model, self._task.kind, loader, limit, self._between),
                limit, loader.longest, lambda: None, self._warn_of_limit,
            )  # fmt: skip
        if split.labels is None:
            return predictions, {}
        return predictions, distributed.broadcast_from_main(self._accelerator, lambda: self._scores(predictions))

    def _warn_of_limit(self, limit: int) -> None:
        if self._accelerator.is_main_process:
            console.log.warning(f"out of memory in the evaluation: continuing with {limit} tokens per forward pass")

    def _load_foreign_metrics(self) -> None:
        """Load and try user-defined metrics before training: they may be missing, or not support the task.

        The names of their numbers are known only from their results.
        """
        with console.notice("loading the metrics"):
            self._load_metrics()
            numbers = metrics.numbers_given(self._metrics, self._task)
        task_settings.check_best_number(self._config, self._task, numbers)

    def _load_metrics(self) -> None:
        self._metrics = metrics.load(self._names, self._task.kind)

    def _scores(self, predictions: Predictions) -> dict[str, float]:
        if not self._metrics:  # lazily, because `evaluate` takes seconds to import
            with console.notice("loading the metrics"):
                self._load_metrics()
        return metrics.scores(predictions, self._metrics, self._positive)
