"""Training with evaluations in between: what the loop is given, and what is kept of it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from job import batches, evaluation, loop, optim, packing, preflight, processes, run_folder, selection
from job.config import Config
from job.data import Data, Split
from job.errors import Refused
from job.evaluation import Predictions
from job.labels import Kind
from job.loop import Trainee
from job.packing import Form
from job.run_folder import RunFolder
from job.tracking import Tracker

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


OVERHEAD = {"cpu": 64, "gpu": 4096}
"""Tokens computed in the fixed time of a forward and backward pass: measured on two cores, estimated for a GPU."""


@dataclass(frozen=True)
class Outcome:
    """What training or evaluation came to.

    Attributes:
        model: unwrapped, with the best weights.
        predictions: of the best evaluation.
        scores: of the best evaluation.
        test: predictions and scores (none without labels) of the test set; None without one.
        best_step: optimizer steps before the best evaluation; 0 where nothing was trained.
        train: numbers of results.json's "train"; None where nothing was trained.
    """

    model: PreTrainedModel
    predictions: Predictions
    scores: Mapping[str, float]
    test: tuple[Predictions, Mapping[str, float]] | None = None
    best_step: int = 0
    train: Mapping[str, Any] | None = None


def evaluate_only(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    accelerator: Accelerator,
    folder: RunFolder,
) -> Outcome:
    """The model as it is, on the evaluation set and, where there is one, the test set."""
    model = accelerator.prepare_model(model, evaluation_mode=True)
    form = packing.choose(config, model, tokenizer, data.evaluation, accelerator)
    packing.keep(form, accelerator, folder)
    evaluate = _Evaluator(config, model, form, data.task.kind, accelerator)
    predictions, scores = evaluate(data.evaluation)
    test = evaluate(data.test) if data.test is not None else None
    return Outcome(accelerator.unwrap_model(model, keep_fp32_wrapper=False), predictions, scores, test)


def finetune(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    accelerator: Accelerator,
    folder: RunFolder,
) -> Outcome:
    """Train, evaluate when due and after the last step, and keep the best.

    Raises:
        Refused, NonFiniteLoss: on every process.
    """
    assert data.train is not None
    training = config.training
    steps = optim.total_steps(training, len(data.train))
    optimizer = optim.optimizer(model, training)
    schedule = optim.schedule(optimizer, training, steps)
    wrapped, prepared = accelerator.prepare(model, optimizer)
    form = packing.choose(config, wrapped, tokenizer, data.train, accelerator)
    packing.keep(form, accelerator, folder)
    torch.manual_seed(training.seed + accelerator.process_index)  # dropout differs between processes
    tracker = Tracker(folder, accelerator, steps, config.run.logging_steps)
    keeper = _Keeper(config, wrapped, form, data, accelerator, folder, tracker, steps)
    try:
        loop.train(
            Trainee(wrapped, prepared, schedule),
            data.train,
            form.collate(data.train),
            training,
            steps,
            max_tokens(training.max_tokens_per_device, accelerator, 2048, 16384, data.train.computed),
            OVERHEAD["cpu" if accelerator.device.type == "cpu" else "gpu"],
            accelerator,
            data.task.kind,
            tracker,
            keeper.after_step,
            form.packed,
        )
    finally:
        tracker.close()
    return keeper.outcome(_train_numbers(tracker, accelerator))


def max_tokens(asked: int | None, accelerator: Accelerator, cpu: int, gpu: int, lengths: Any) -> int:
    """Tokens per forward pass: as asked, else by device; never less than the longest example."""
    longest = int(lengths.max())
    if asked is not None and asked < longest:
        raise Refused(
            f"an example has {longest} tokens: raise --max_tokens_per_device {asked} or lower --max_seq_length"
        )
    return asked or max(cpu if accelerator.device.type == "cpu" else gpu, longest)


class _Evaluator:
    """Predictions and scores of a split; the scores are computed on the main process and told to all."""

    def __init__(
        self,
        config: Config,
        model: torch.nn.Module,
        form: Form,
        kind: Kind,
        accelerator: Accelerator,
    ) -> None:
        self._model, self._form, self._kind, self._accelerator = model, form, kind, accelerator
        self._asked = config.evaluation.eval_max_tokens_per_device
        self._names = evaluation.metrics_for(config.evaluation.metrics, kind)
        self._metrics: dict[str, Any] = {}
        if not set(self._names) <= set(preflight.METRICS):  # a foreign one may not be there
            processes.from_main(accelerator, self._load_metrics)

    def __call__(self, split: Split) -> tuple[Predictions, dict[str, float]]:
        """The scores are empty for a split without labels."""
        batch, packed = self._form.collate(split), self._form.packed
        limit = max_tokens(self._asked, self._accelerator, 4096, 65536, split.computed)
        predictions = evaluation.predict(self._model, self._kind, split, batch, self._accelerator, limit, packed)
        if split.labels is None:
            return predictions, {}
        return predictions, processes.from_main(self._accelerator, lambda: self._scores(predictions))

    def _load_metrics(self) -> None:
        self._metrics = evaluation.load_metrics(self._names, self._kind)

    def _scores(self, predictions: Predictions) -> dict[str, float]:
        if not self._metrics:  # `evaluate` takes seconds to import: not before it is needed
            self._load_metrics()
        return evaluation.scores(predictions, self._metrics)


class _Keeper:
    """Evaluates when due, and keeps weights and predictions of the best evaluation."""

    def __init__(
        self,
        config: Config,
        model: torch.nn.Module,
        form: Form,
        data: Data,
        accelerator: Accelerator,
        folder: RunFolder,
        tracker: Tracker,
        steps: int,
    ) -> None:
        assert data.train is not None
        self._evaluation, self._model, self._accelerator = config.evaluation, model, accelerator
        self._folder, self._tracker, self._steps = folder, tracker, steps
        self._per_epoch = batches.steps_per_epoch(len(data.train), config.training.train_batch_size)
        self._data = data
        self._evaluate = _Evaluator(config, model, form, data.task.kind, accelerator)
        self._selection = selection.selection(config.evaluation, data.task.kind)
        self._best: tuple[Predictions, dict[str, float]] | None = None
        self._last_step = 0

    def after_step(self, step: int, epoch: float) -> bool:
        """Evaluate if it is time; True if training should stop."""
        self._last_step = step
        if not self._due(step):
            return False
        begun = time.monotonic()
        predictions, scores = self._evaluate(self._data.evaluation)
        best = self._selection.take(scores, step)
        if best:
            self._best = (predictions, scores)
            self._save_best(step)
        self._tracker.evaluated(epoch, scores, best, time.monotonic() - begun)
        return self._selection.should_stop

    def _due(self, step: int) -> bool:
        if step == self._steps:
            return True
        strategy = self._evaluation.eval_strategy
        if strategy == "epoch":
            return step % self._per_epoch == 0
        return strategy == "steps" and step % (self._evaluation.eval_steps or 1) == 0

    def _save_best(self, step: int) -> None:
        if step == self._steps or not self._accelerator.is_main_process:
            return  # after the last step the weights are at hand
        state = self._accelerator.unwrap_model(self._model).state_dict()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        run_folder.publish(self._folder.best, lambda aside: save_file(_without_aliases(tensors), aside))

    def outcome(self, train: Mapping[str, Any]) -> Outcome:
        """The best model, what it predicted, and the test set's predictions by it."""
        assert self._best is not None
        model = self._accelerator.unwrap_model(self._model, keep_fp32_wrapper=False)
        if self._selection.best_step != self._last_step:
            self._restore_best(model)
        test = self._evaluate(self._data.test) if self._data.test is not None else None
        return Outcome(model, *self._best, test, self._selection.best_step, train)

    def _restore_best(self, model: PreTrainedModel) -> None:
        """The best weights, read by the main process and told to all: the run folder may be its own disk."""
        if self._accelerator.is_main_process:
            model.load_state_dict(load_file(self._folder.best), strict=False)
        if self._accelerator.num_processes > 1:
            for tensor in model.state_dict().values():
                torch.distributed.broadcast(tensor, src=0)


def _without_aliases(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tied weights once: a safetensors file holds no tensor twice."""
    seen: set[int] = set()
    kept = {}
    for name, tensor in tensors.items():
        if tensor.data_ptr() not in seen or tensor.numel() == 0:
            kept[name] = tensor
        seen.add(tensor.data_ptr())
    return kept


def _train_numbers(tracker: Tracker, accelerator: Accelerator) -> dict[str, Any]:
    seconds = max(tracker.seconds, 1e-9)
    return {
        "steps": tracker.step,
        "examples": tracker.examples,
        "seconds": round(tracker.seconds, 3),
        "examples_per_second": round(tracker.examples / seconds, 2),
        "tokens_per_second": round(tracker.tokens / seconds, 1),
        "peak_memory_bytes": peak_memory(accelerator),
    }


def peak_memory(accelerator: Accelerator) -> int:
    """Most bytes this process held: on the GPU where it has one, else resident memory."""
    if accelerator.device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
