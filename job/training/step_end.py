"""The end of a step: evaluation, checkpoints, stopping, and selection of the best model.

All of it is in one place because the order matters: a stop may come during an evaluation, an evaluation decides what a
checkpoint contains, and the best weights are loaded from a checkpoint.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from job import config as configuration
from job import distributed
from job.batching import planner
from job.batching.forms import Form
from job.data.dataset import Data, Split
from job.errors import Interrupted, Pruned, Stopped
from job.evaluation.evaluator import Evaluator
from job.evaluation.prediction import Predictions
from job.run import checkpoints, manifest, resuming
from job.run import folder as run_folder
from job.run.checkpoints import Snapshot
from job.run.context import RunContext
from job.run.tracking import Recorder
from job.runtime.console import log
from job.training import best_model, state
from job.training.outcome import Outcome
from job.training.state import TrainState
from job.training.step_loss import StepLoss, reject_non_finite
from job.training.stopping import StopVote

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from job.model.lora import Adapter

DEFAULT_SAVE_LIMIT = 2
"""Checkpoints to keep in addition to the best one, by default: two, because one may turn out to be damaged."""
EVALUATION = "evaluation"
"""File of a checkpoint with the predictions of the evaluation at its step."""
MODEL_SETTINGS = "model_settings"
"""Key of a checkpoint's state: what the weights do not show, such as dropout."""


class StepEnd:
    """Evaluates, saves and stops when due, and returns the best model in the end. Call it alike on every process."""

    def __init__(
        self,
        context: RunContext,
        training: TrainState,
        form: Form,
        data: Data,
        recorder: Recorder,
        resumed: Mapping[str, Any] | None,
    ) -> None:
        """`resumed`: the plain values of the checkpoint to resume from."""
        assert data.train is not None and data.evaluation is not None
        config = context.config
        self._context, self._training, self._data, self._recorder = context, training, data, recorder
        self._accelerator, self._evaluation = context.accelerator, data.evaluation
        self._per_epoch = planner.steps_per_epoch(len(data.train), config.training.train_batch_size)
        self._vote = StopVote(config.run, context.accelerator)
        self._evaluate = Evaluator(context, training.model, form, data.task, self._vote.poll)
        limit = config.run.save_total_limit or DEFAULT_SAVE_LIMIT
        self._writer = checkpoints.Writer(context.folder.checkpoints, limit)
        self._selection = best_model.selection(config.evaluation, data.task.kind)
        self._best: tuple[Predictions, dict[str, float]] | None = None
        self._evaluation_pending = False
        if resumed is not None:
            self._selection = dataclasses.replace(self._selection, **resumed["selection"])
            self._evaluation_pending = resumed["pending_evaluation"]

    def finish_interrupted_evaluation(self) -> None:
        """After a resume, repeat the evaluation that the stop interrupted."""
        if self._evaluation_pending:
            with self._saving_if_stopped():
                self._evaluate_now(self._recorder.step / self._per_epoch)
            self._save()

    @property
    def training_is_over(self) -> bool:
        """Whether there is no step left to train."""
        return self._selection.should_stop or self._recorder.step >= self._recorder.steps

    def after_step(self, epoch: float, loss: StepLoss) -> bool:
        """Evaluate and save if due; True if training should stop early.

        Raises:
            Stopped: on every process, after a checkpoint.
        """
        step, every = self._recorder.step, self._context.config.run.save_steps
        self._evaluation_pending = self._evaluation_is_due(step)
        with self._saving_if_stopped(loss):
            save = self._vote.poll() or self._evaluation_pending or (every is not None and step % every == 0)
            if self._evaluation_pending:
                self._evaluate_now(epoch)
            if save:
                self._save(loss)
        return self._selection.should_stop

    def outcome(self) -> Outcome:
        """The best model with its predictions on the evaluation and test sets; `train` is not set."""
        self._recorder.finish()
        self._flush_records()
        if self._accelerator.is_main_process and not self._selection.has_best:
            log.warning(f"{self._selection.metric} was NaN in every evaluation: keeping the newest model")
        best_step = self._selection.best_step
        if best_step != self._recorder.step or self._best is None:
            self._restore_best(self._accelerator.unwrap_model(self._training.model), best_step)
        assert self._best is not None
        try:
            if self._training.adapter is not None:
                self._merge(self._training.adapter)
            test = None if self._data.test is None else self._evaluate_test(self._data.test)
        except Stopped as stop:
            self._require_saved(stop)
            stop.progress = f"after the last step, checkpoint saved; {self._how_to_resume()}"
            raise
        # Last, as it takes autocast off the model: what is evaluated after it would not be computed in mixed precision.
        model = self._accelerator.unwrap_model(self._training.model, keep_fp32_wrapper=False)
        return Outcome(model, self._best, test, best_step, adapter=self._training.adapter)

    def _evaluate_test(self, test: Split) -> tuple[Predictions, dict[str, float]]:
        with manifest.timed(self._context.folder, "test", self._accelerator.is_main_process):
            return self._evaluate(test)

    def _merge(self, adapter: Adapter) -> None:
        """Merge the best adapters into the model, and evaluate the published model again, because merging rounds."""
        adapter.merge()
        self._best = self._evaluate(self._evaluation)
        step = self._selection.best_step
        self._recorder.merged(step, step / self._per_epoch, self._best[1])
        self._flush_records()

    def _flush_records(self) -> None:
        with distributed.raise_on_all(self._accelerator), run_folder.interrupted_by_disk_errors(self._context.folder):
            self._recorder.flush()

    def close(self) -> None:
        """Finish pending writes; no step may follow."""
        self._vote.close()
        self._writer.close()

    @contextlib.contextmanager
    def _saving_if_stopped(self, loss: StepLoss | None = None) -> Iterator[None]:
        """Save a checkpoint if a stop interrupts the work inside this context."""
        try:
            yield
        except Stopped as stop:
            self._save(loss)
            self._require_saved(stop)
            stop.progress = (f"at step {self._recorder.step}/{self._recorder.steps}, checkpoint saved; "
                             f"{self._how_to_resume()}")  # fmt: skip
            raise

    def _require_saved(self, stop: Stopped) -> None:
        """Wait for the last checkpoint. Interrupted if it could not be written, so that the run cannot resume from
        here."""
        if not self._wait_for_writer():
            raise Interrupted(
                f"stopped by {stop.reason}, but the checkpoint of step {self._recorder.step} could not be written: "
                f"free some space in {self._context.folder.path}, then run"
            ) from None

    def _wait_for_writer(self) -> bool:
        """Wait, on every process, until the last checkpoint is on disk; False if it could not be written.

        If the main process waited alone, the others would give it up in the next step, which has a time limit.
        """
        with self._vote.untimed():
            return distributed.broadcast_from_main(self._accelerator, self._writer.wait)

    def _how_to_resume(self) -> str:
        return f"run {resuming.command(self._context.folder, self._context.config.run)} to resume"

    def _evaluate_now(self, epoch: float) -> None:
        begun = time.monotonic()
        predictions, scores = self._evaluate(self._evaluation)
        best = self._selection.take(scores, self._recorder.step)
        if best:
            self._best = (predictions, scores)
        seconds = time.monotonic() - begun
        self._recorder.evaluated(epoch, scores, best and self._selection.has_best, seconds)
        if self._accelerator.is_main_process:
            manifest.add_seconds(self._context.folder, "evaluation", seconds)
        self._evaluation_pending = False
        self._prune_if_worse(scores)

    def _prune_if_worse(self, scores: Mapping[str, float]) -> None:
        """Report this evaluation to the search; raises Pruned, on every process, if most trials did better by now."""
        trial, selected, recorder = self._context.trial, self._selection, self._recorder
        if trial is None:
            return
        progress = 1.0 if selected.should_stop else recorder.step / recorder.steps
        score, greater = scores[selected.metric], selected.greater
        if distributed.broadcast_from_main(
            self._accelerator, lambda: trial.report(score, greater=greater, progress=progress)
        ):
            recorder.finish()
            raise Pruned(f"pruned at step {recorder.step}/{recorder.steps}: {selected.metric} {score:.4f} is worse "
                         "than half of the other trials had by then")  # fmt: skip

    def _evaluation_is_due(self, step: int) -> bool:
        if step == self._recorder.steps:
            return True
        evaluation = self._context.config.evaluation
        if evaluation.eval_strategy == "epoch":
            return step % self._per_epoch == 0
        return evaluation.eval_strategy == "steps" and step % (evaluation.eval_steps or 1) == 0

    def _save(self, loss: StepLoss | None = None) -> None:
        """Copy the state and write it in the background, after the previous one. A state with a non-finite loss is
        never saved."""
        reject_non_finite(loss, cast(Split, self._data.train), self._accelerator)
        begun = time.monotonic()
        self._wait_for_writer()
        tensors, values = state.capture(self._training, self._accelerator)
        if self._accelerator.is_main_process:
            self._writer.save(self._snapshot(tensors, values))
        seconds = time.monotonic() - begun
        self._recorder.stalled(seconds)
        self._vote.saved(seconds)

    def _snapshot(self, tensors: dict[str, checkpoints.Tensors], values: dict[str, Any]) -> Snapshot:
        selected = self._selection
        plain = {
            **values,
            "tracker": self._recorder.state(),
            "selection": {"best": selected.best, "best_step": selected.best_step, "since_best": selected.since_best},
            "pending_evaluation": self._evaluation_pending,
            "data": fingerprints(self._data),
            MODEL_SETTINGS: model_settings(self._accelerator.unwrap_model(self._training.model).config),
        }
        if self._best is not None and selected.best_step == self._recorder.step:
            predictions, scores = self._best
            tensors = {**tensors, EVALUATION: {"logits": torch.from_numpy(predictions.logits)}}
            plain["scores"] = scores
        text = configuration.to_yaml(self._context.config)
        return Snapshot(self._recorder.step, selected.best_step, tensors, plain, text)

    def _restore_best(self, model: PreTrainedModel, step: int) -> None:
        """Load the weights and the evaluation of the best step from its checkpoint, which the main process reads."""
        found = None
        with self._vote.untimed(), distributed.raise_on_all(self._accelerator):
            if self._accelerator.is_main_process:
                found = self._read_checkpoint(step)
        weights = None if found is None else found.tensors[state.MODEL]
        state.load_weights(model, distributed.broadcast_tensors(self._accelerator, weights))
        logits, scores = distributed.broadcast_from_main(self._accelerator, lambda: _evaluation(cast(Snapshot, found)))
        split = self._evaluation
        self._best = (Predictions(self._data.task.kind, split.row_ids, logits, split.labels), scores)

    def _read_checkpoint(self, step: int) -> Snapshot:
        self._writer.wait()
        pending = self._writer.pending_retry
        if pending is not None and pending.step == step:
            return pending
        return checkpoints.read(self._context.folder.checkpoints / checkpoints.name(step))


def _evaluation(snapshot: Snapshot) -> tuple[np.ndarray, dict[str, float]]:
    """Logits and scores of the evaluation in this checkpoint."""
    return snapshot.tensors[EVALUATION]["logits"].numpy(), snapshot.state["scores"]


def model_settings(pretrained: PreTrainedConfig) -> dict[str, Any]:
    """The content of the model's config.json, as plain values."""
    return json.loads(pretrained.to_json_string(use_diff=False))


def fingerprints(data: Data) -> dict[str, str]:
    """Identify the examples and their tokens: a checkpoint's position is valid only for these."""
    assert data.train is not None
    return {"source": data.fingerprint, "tokens": data.train.tokens._fingerprint}
