"""What happens between two steps: evaluations, checkpoints, the agreed stop, and the choice of the best.

All of it is in one place, because the order counts: a stop may come in the middle of an evaluation, an evaluation
decides what a checkpoint holds, and a checkpoint is what the best weights are read back from.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch

from job import config as configuration
from job import distributed
from job.batching import planner
from job.batching.forms import Form
from job.data.dataset import Data, Split
from job.errors import JobError, Stopped
from job.evaluation.evaluator import Evaluator
from job.evaluation.prediction import Predictions
from job.run import checkpoints
from job.run import folder as run_folder
from job.run.checkpoints import Snapshot
from job.run.context import RunContext
from job.run.tracking import Tracker
from job.training import best_model, state
from job.training.state import TrainState
from job.training.step_loss import StepLoss, reject_non_finite
from job.training.stopping import Boundary

if TYPE_CHECKING:
    from transformers import PreTrainedModel

KEPT = 2
"""Checkpoints that stay, besides the best, where the user does not say: one may turn out to be damaged."""
EVALUATION = "evaluation"
"""File of a checkpoint that holds the predictions of the evaluation made there."""


@dataclass(frozen=True)
class Outcome:
    """What training or evaluation came to.

    Attributes:
        model: unwrapped, with the best weights.
        evaluated: predictions and scores of the best evaluation; None where the test set is all there is.
        test: predictions and scores (none without labels) of the test set; None without one.
        best_step: optimizer steps before the best evaluation; 0 where nothing was trained.
        train: numbers of results.json's "train"; None where nothing was trained.
    """

    model: PreTrainedModel
    evaluated: tuple[Predictions, Mapping[str, float]] | None
    test: tuple[Predictions, Mapping[str, float]] | None = None
    best_step: int = 0
    train: Mapping[str, Any] | None = None


class Keeper:
    """Evaluates, saves and stops when due, and gives the best in the end. The same calls on every process."""

    def __init__(
        self,
        context: RunContext,
        trainee: TrainState,
        form: Form,
        data: Data,
        tracker: Tracker,
        so_far: Mapping[str, Any] | None,
    ) -> None:
        assert data.train is not None and data.evaluation is not None
        config, folder = context.config, context.folder
        self._config, self._trainee, self._accelerator, self._data = config, trainee, context.accelerator, data
        self._evaluation = data.evaluation
        self._folder, self._tracker, self._steps = folder, tracker, tracker.steps
        self._per_epoch = planner.steps_per_epoch(len(data.train), config.training.train_batch_size)
        self._boundary = Boundary(config.run, context.accelerator)
        self._evaluate = Evaluator(context, trainee.model, form, data.task.kind, self._boundary.cross)
        self._writer = checkpoints.Writer(folder.checkpoints, config.run.save_total_limit or KEPT, tracker.say)
        self._selection = best_model.selection(config.evaluation, data.task.kind)
        self._best: tuple[Predictions, dict[str, float]] | None = None
        self._pending = False
        if so_far is not None:
            self._selection = dataclasses.replace(self._selection, **so_far["selection"])
            self._pending = so_far["pending_evaluation"]

    def catch_up(self) -> bool:
        """After an interruption: the evaluation that it cut short. True if there is nothing left to train."""
        if self._pending:
            self._stoppable(lambda: self._evaluate_now(self._tracker.step / self._per_epoch))
            self._save()
        return self._selection.should_stop or self._tracker.step >= self._steps

    def after_step(self, epoch: float, loss: StepLoss) -> bool:
        """Evaluate and save if it is time; True if training should stop early.

        Raises:
            Stopped: on every process, after a checkpoint.
        """
        step = self._tracker.step
        self._pending = self._due(step)
        self._stoppable(lambda: self._between_steps(step, epoch, loss), loss)
        return self._selection.should_stop

    def _between_steps(self, step: int, epoch: float, loss: StepLoss) -> None:
        save = self._boundary.cross() or self._pending or step % (self._config.run.save_steps or step + 1) == 0
        if self._pending:
            self._evaluate_now(epoch)
        if save:
            self._save(loss)

    def _stoppable(self, work: Callable[[], object], loss: StepLoss | None = None) -> None:
        """Do `work`; where that is cut short by a stop, save a checkpoint first and say so."""
        try:
            work()
        except Stopped as stop:
            self._save(loss)
            where = f"at step {self._tracker.step} of {self._steps}, with a checkpoint"
            raise self._stopped_safely(f"{stop}, {where}") from None

    def _stopped_safely(self, said: str) -> JobError:
        """What to raise at a stop: Stopped, once the last checkpoint is on the disk."""
        if not distributed.from_main(self._accelerator, self._writer.wait):
            why = said.partition(",")[0]
            return JobError(f"{why}, and the checkpoint of step {self._tracker.step} could not be written: make room "
                            f"in {self._folder.path}, then start the same command again")  # fmt: skip
        same = "the same command" + " without --overwrite_output_dir" * self._config.run.overwrite_output_dir
        return Stopped(f"{said}; {same} goes on from there")

    def _evaluate_now(self, epoch: float) -> None:
        begun = time.monotonic()
        predictions, scores = self._evaluate(self._evaluation)
        best = self._selection.take(scores, self._tracker.step)
        if best:
            self._best = (predictions, scores)
        self._tracker.evaluated(epoch, scores, best, time.monotonic() - begun)
        self._pending = False

    def _due(self, step: int) -> bool:
        if step == self._steps:
            return True
        evaluation = self._config.evaluation
        if evaluation.eval_strategy == "epoch":
            return step % self._per_epoch == 0
        return evaluation.eval_strategy == "steps" and step % (evaluation.eval_steps or 1) == 0

    def _save(self, loss: StepLoss | None = None) -> None:
        """Copy the state, and let it be written in the background. A loss that is not finite is never saved."""
        reject_non_finite(loss, cast(Split, self._data.train), self._accelerator)
        begun = time.monotonic()
        tensors, values = state.capture(self._trainee, self._accelerator)
        if self._accelerator.is_main_process:
            self._writer.save(self._snapshot(tensors, values))
        seconds = time.monotonic() - begun
        self._tracker.stalled(seconds)
        self._boundary.saved(seconds)

    def _snapshot(self, tensors: dict[str, checkpoints.Tensors], values: dict[str, Any]) -> Snapshot:
        selected = self._selection
        state = {
            **values,
            "tracker": self._tracker.state(),
            "selection": {"best": selected.best, "best_step": selected.best_step, "since_best": selected.since_best},
            "pending_evaluation": self._pending,
            "data": fingerprints(self._data),
        }
        if self._best is not None and selected.best_step == self._tracker.step:
            predictions, scores = self._best
            tensors = {**tensors, EVALUATION: {"logits": torch.from_numpy(predictions.logits)}}
            state["scores"] = scores
        return Snapshot(self._tracker.step, selected.best_step, tensors, state, configuration.to_yaml(self._config))

    def outcome(self, train: Callable[[], Mapping[str, Any]]) -> Outcome:
        """The best model, what it predicted, and the test set's predictions by it."""
        with distributed.agreed(self._accelerator), run_folder.needing_room(self._folder):
            self._tracker.finish()
        numbers = train()
        model = self._accelerator.unwrap_model(self._trainee.model, keep_fp32_wrapper=False)
        best_step = self._selection.best_step
        if best_step != self._tracker.step or self._best is None:
            self._restore_best(model, best_step)
        assert self._best is not None
        test = None
        if self._data.test is not None:
            try:
                test = self._evaluate(self._data.test)
            except Stopped as stop:
                raise self._stopped_safely(f"{stop}, after the last step") from None
        return Outcome(model, self._best, test, best_step, numbers)

    def _restore_best(self, model: PreTrainedModel, step: int) -> None:
        """The weights and the evaluation of the best step, from its checkpoint, which the main process reads."""

        def read() -> Snapshot:
            self._writer.wait()
            if self._writer.owed is not None and self._writer.owed.step == step:
                return self._writer.owed
            return checkpoints.read(self._folder.checkpoints / checkpoints.name(step))

        main = self._accelerator.is_main_process
        found = None
        with distributed.agreed(self._accelerator):
            found = read() if main else None
        state.load_weights(model, distributed.tensors_from_main(
            self._accelerator, None if found is None else found.tensors[state.MODEL]))  # fmt: skip
        kept = distributed.from_main(
            self._accelerator,
            lambda: found and (found.tensors[EVALUATION]["logits"].numpy(), found.state["scores"]),
        )
        split = self._evaluation
        self._best = (Predictions(self._data.task.kind, split.index, kept[0], split.labels), kept[1])

    def close(self) -> None:
        """Nothing is being written any more, and no boundary comes."""
        self._boundary.close()
        self._writer.close()


def fingerprints(data: Data) -> dict[str, str]:
    """What the examples and their tokens are: a checkpoint's position means nothing on others."""
    assert data.train is not None
    return {"source": data.fingerprint, "tokens": data.train.tokens._fingerprint}
