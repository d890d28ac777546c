"""Training with evaluations in between: what the loop is given, and what is kept of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator

from job import distributed
from job.batching import forms, planner
from job.config import Config
from job.data.dataset import Data
from job.errors import Stopped
from job.evaluation.evaluator import Evaluator, max_tokens
from job.model import cpu_dropout
from job.run import checkpoints, manifest
from job.run.folder import RunFolder
from job.run.status import Status
from job.run.tracking import Tracker
from job.runtime.console import say
from job.training import loop, state
from job.training import optimizer as optim
from job.training.loop import Trainee
from job.training.step_end import Keeper, Outcome
from job.training.stopping import Boundary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


OVERHEAD = {"cpu": 64, "gpu": 4096}
"""Tokens computed in the fixed time of a forward and backward pass: measured on two cores, estimated for a GPU."""


def evaluate_only(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    accelerator: Accelerator,
    folder: RunFolder,
) -> Outcome:
    """The model as it is, on the evaluation set and the test set, or the one of them that there is."""
    form = forms.choose(config, model, tokenizer, data.splits, accelerator)
    _announce(form, accelerator, folder)
    model = accelerator.prepare_model(model, evaluation_mode=True)
    boundary = Boundary(config.run, accelerator)
    evaluate = Evaluator(config, model, form, data.task.kind, accelerator, boundary.cross)
    try:
        evaluated, test = (None if split is None else evaluate(split) for split in (data.evaluation, data.test))
    except Stopped as stop:
        raise Stopped(f"{stop}, during the evaluation; the same command begins it again") from None
    finally:
        boundary.close()
    return Outcome(accelerator.unwrap_model(model, keep_fp32_wrapper=False), evaluated, test)


def finetune(
    config: Config,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    accelerator: Accelerator,
    folder: RunFolder,
    status: Status,
    resumed: Path | None = None,
) -> Outcome:
    """Train, evaluate when due and after the last step, save checkpoints, and keep the best.

    `resumed` is the checkpoint to go on from; the main process alone reads it.

    Raises:
        Refused, NonFiniteLoss: on every process.
        Stopped: on every process, after a checkpoint.
    """
    assert data.train is not None
    training = config.training
    steps = optim.total_steps(training, len(data.train))
    form = forms.choose(config, model, tokenizer, data.splits, accelerator)
    _announce(form, accelerator, folder)
    if not config.model.torch_compile:  # whose graph it would cut at every layer
        cpu_dropout.replace_dropout(model)
    optimizer = optim.optimizer(model, training)
    schedule = optim.schedule(optimizer, training, steps)
    wrapped, prepared = accelerator.prepare(model, optimizer)
    torch.manual_seed(training.seed + accelerator.process_index)  # dropout differs between processes
    trainee = Trainee(wrapped, prepared, schedule)
    collated = form.collate(data.train)
    limit = max_tokens(training.max_tokens_per_device, accelerator, 4096, 16384, data.train.computed)
    limit = distributed.from_main(accelerator, lambda: manifest.token_limit(folder, limit))
    overhead = OVERHEAD["cpu" if accelerator.device.type == "cpu" else "gpu"]

    so_far = None
    if resumed is not None:
        if accelerator.num_processes > 1:
            few = planner.plan_step(np.arange(1), data.train.computed, limit, accelerator.num_processes, overhead)
            loop.settle_gradient_buckets(trainee, collated, few[accelerator.process_index], accelerator, data.task.kind)
        so_far = _resume(resumed, trainee, accelerator)
    tracker = Tracker(
        folder, status, accelerator, steps, config.run.logging_steps, None if so_far is None else so_far["tracker"]
    )
    keeper = Keeper(config, trainee, form, data, accelerator, folder, tracker, steps, so_far)

    def halved(limit: int) -> None:
        step = tracker.step + 1
        tracker.say(f"out of memory in step {step}: from here on {limit} tokens a forward pass, on the same examples")
        if accelerator.is_main_process:
            manifest.amend(folder, **{manifest.TOKEN_LIMIT: limit})

    try:
        if not keeper.catch_up():
            loop.train(trainee, data.train, collated, training, steps, limit, overhead, accelerator, data.task.kind,
                       tracker, keeper.after_step, form.shape, halved)  # fmt: skip
        return keeper.outcome(lambda: _train_numbers(tracker, accelerator))
    finally:
        keeper.close()
        tracker.close()


def _announce(form: forms.Form, accelerator: Accelerator, folder: RunFolder) -> None:
    """Print the form of the run's forward passes and write it into the manifest."""
    if accelerator.is_main_process:
        say(f"forward  {form}")
        manifest.amend(folder, forward=str(form))


def _resume(path: Path, trainee: Trainee, accelerator: Accelerator) -> Mapping[str, Any]:
    """Put the state of a checkpoint back on every process; what else it says, for tracker and keeper."""
    main = accelerator.is_main_process
    snapshot = None
    if main:
        checkpoints.begin_attempt(path)
        snapshot = checkpoints.read(path)
    state.put_back(snapshot, trainee, accelerator)
    if main:
        checkpoints.end_attempt(path)
    return distributed.from_main(accelerator, lambda: None if snapshot is None else dict(snapshot.state))


def _train_numbers(tracker: Tracker, accelerator: Accelerator) -> dict[str, Any]:
    seconds = max(tracker.seconds, 1e-9)
    return {
        "steps": tracker.step,
        "examples": tracker.examples,
        "seconds": round(tracker.seconds, 3),
        "examples_per_second": round(tracker.examples / seconds, 2),
        "tokens_per_second": round(tracker.tokens / seconds, 1),
        "checkpoint_stall_seconds": round(tracker.stall, 3),
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
