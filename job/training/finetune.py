"""Fine-tuning: prepares what the training loop needs, runs it, and returns the outcome; or only evaluates."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from accelerate import Accelerator

from job import distributed
from job.batching import forms, planner
from job.batching.loader import BatchLoader
from job.data.dataset import Data
from job.errors import Stopped
from job.evaluation.evaluator import Evaluator
from job.model import cpu_dropout
from job.run import checkpoint_choice, checkpoints, manifest
from job.run.checkpoints import Snapshot
from job.run.context import RunContext
from job.run.tracking import Recorder
from job.runtime.console import log
from job.training import consistency, loop, objective, token_limit, unused_parameters
from job.training import optimizer as optim
from job.training.objective import Objective
from job.training.outcome import Outcome
from job.training.state import TrainState, restore
from job.training.step_end import StepEnd
from job.training.stopping import StopVote

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from job.model.lora import Adapter


OVERHEAD = {"cpu": 64, "gpu": 16384}
"""Tokens computed in the fixed time of a forward and backward pass: measured on two cores, and on an H200 whose host
took 60 ms, in which it computed 20,000 tokens of BERT-base."""


def evaluate_only(
    context: RunContext, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, data: Data
) -> Outcome:
    """Evaluate the model as it is on the evaluation set and the test set, if there are any."""
    accelerator = context.accelerator
    form = forms.choose(context.config, model, tokenizer, data.splits, accelerator)
    _announce(form, context)
    model = accelerator.prepare_model(model, evaluation_mode=True)
    vote = StopVote(context.config.run, accelerator)
    evaluate = Evaluator(context, model, form, data.task, vote.poll)
    try:
        with manifest.timed(context.folder, "evaluation", accelerator.is_main_process):
            evaluated, test = (None if split is None else evaluate(split) for split in (data.evaluation, data.test))
    except Stopped as stop:
        stop.progress = "during the evaluation; run the same command to start it again"
        raise
    finally:
        vote.close()
    return Outcome(accelerator.unwrap_model(model, keep_fp32_wrapper=False), evaluated, test)


def finetune(
    context: RunContext,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    resumed: Path | None = None,
    adapter: Adapter | None = None,
) -> Outcome:
    """Train, evaluate when due and after the last step, save checkpoints, and keep the best.

    Args:
        resumed: the checkpoint to resume from; the main process alone reads it.
        adapter: the adapters in `model`, whose other weights are then frozen; None if all weights are trained.

    Raises:
        Refused, NonFiniteLoss: on every process.
        Stopped: on every process, after a checkpoint.
    """
    assert data.train is not None
    accelerator, training = context.accelerator, context.config.training
    unused_parameters.settle(model, tokenizer, data.train, accelerator)
    form = forms.choose(context.config, model, tokenizer, data.splits, accelerator)
    _announce(form, context)
    if not context.config.model.torch_compile:  # whose graph it would cut at every layer
        cpu_dropout.replace_dropout(model)
    if adapter is not None:
        _ready_adapter(context, adapter)
    state, steps = _prepared(context, model, len(data.train), adapter)
    wanted = _objective(context, data, steps)
    torch.manual_seed(training.seed + accelerator.process_index)  # dropout differs between processes
    loader = BatchLoader(data.train, form, accelerator, OVERHEAD[distributed.device_class(accelerator)])
    limit = _token_limit(context, model, loader)

    loop.settle_gradient_buckets(state, loader, wanted.losses)
    saved = None if resumed is None else _resume(resumed, state, accelerator)
    recorder = Recorder(context, steps, None if saved is None else saved["tracker"])
    step_end = StepEnd(context, state, form, data, recorder, saved)
    try:
        step_end.finish_interrupted_evaluation()
        if not step_end.training_is_over:
            loop.train(context, state, loader, wanted, limit, recorder, step_end.after_step)
        return dataclasses.replace(step_end.outcome(), train=_train_numbers(recorder, accelerator))
    finally:
        step_end.close()
        recorder.close()


def _announce(form: forms.Form, context: RunContext) -> None:
    """Log the form of the run's forward passes and write it into the manifest."""
    if context.accelerator.is_main_process:
        log.info(f"forward  {form}")
        manifest.amend(context.folder, forward=str(form))


def _objective(context: RunContext, data: Data, steps: int) -> Objective:
    """The loss to minimise; class weights are logged and written into the manifest."""
    assert data.train is not None
    training, accelerator, names = context.config.training, context.accelerator, data.task.names
    wanted = objective.objective(data.task, training, data.train, accelerator.device)
    batches = planner.global_batches(len(data.train), training.train_batch_size, training.seed, steps)
    objective.refuse_weightless(wanted, batches, names)
    weights = wanted.describe(names)
    if weights and accelerator.is_main_process:
        log.info(f"weights  {objective.in_words(weights)}")
        manifest.amend(context.folder, class_weights=weights)
    return wanted


def _token_limit(context: RunContext, model: PreTrainedModel, loader: BatchLoader) -> int:
    """The token limit of a forward pass; on a GPU it is logged and written into the manifest."""
    config, accelerator, folder = context.config, context.accelerator, context.folder
    default = token_limit.default(model, accelerator, config.model.gradient_checkpointing)
    requested = config.training.max_tokens_per_device
    limit = loader.token_limit(requested, default)
    limit = distributed.broadcast_from_main(accelerator, lambda: manifest.token_limit(folder, limit, requested))
    if accelerator.is_main_process and accelerator.device.type == "cuda":
        log.info(f"tokens   {limit:,} in a forward pass")
        manifest.amend(folder, tokens_in_a_pass=limit)
    return limit


def _ready_adapter(context: RunContext, adapter: Adapter) -> None:
    """Cast the frozen weights to bf16 if the run computes in bf16; not earlier, as the forms are compared in fp32."""
    if context.accelerator.mixed_precision == "bf16":
        adapter.hold_base_in_bf16()
    if context.accelerator.is_main_process:
        log.info(f"lora     {adapter.describe()}")
        manifest.amend(context.folder, adapter=adapter.describe(), base=adapter.base)


def _prepared(
    context: RunContext, model: PreTrainedModel, examples: int, adapter: Adapter | None
) -> tuple[TrainState, int]:
    """The state that training starts from, on the device, and the number of steps."""
    training = context.config.training
    steps = optim.total_steps(training, examples)
    optimizer = optim.optimizer(model, training)
    rates = optim.describe_rates(model, training)
    if rates is not None and context.accelerator.is_main_process:
        log.info(f"rates    {rates}")
    schedule = optim.schedule(optimizer, training, steps)
    with warnings.catch_warnings():  # Accelerate has no other name for the argument yet
        warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated", category=FutureWarning)
        wrapped, prepared = context.accelerator.prepare(model, optimizer)
    optim.allocate_moments(optimizer)
    return TrainState(wrapped, prepared, schedule, adapter), steps


def _resume(path: Path, state: TrainState, accelerator: Accelerator) -> Mapping[str, Any]:
    """Restore a checkpoint on every process; returns its plain values, for the recorder and the step end."""
    main = accelerator.is_main_process
    model = accelerator.unwrap_model(state.model)
    with checkpoint_choice.attempt(path) if main else contextlib.nullcontext():
        distributed.broadcast_from_main(
            accelerator, lambda: consistency.refuse_other_model(path, model, state.optimizer)
        )
        snapshot = checkpoints.read(path) if main else None
        restore(snapshot, state, accelerator)
    return distributed.broadcast_from_main(accelerator, lambda: dict(cast(Snapshot, snapshot).state))


def _train_numbers(recorder: Recorder, accelerator: Accelerator) -> dict[str, Any]:
    seconds, on_gpu = max(recorder.seconds, 1e-9), accelerator.device.type == "cuda"
    return {
        "steps": recorder.step,
        "examples": recorder.examples,
        "seconds": round(recorder.seconds, 3),
        "examples_per_second": round(recorder.examples / seconds, 2),
        "tokens_per_second": round(recorder.tokens / seconds, 1),
        "checkpoint_stall_seconds": round(recorder.stall, 3),
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else recorder.peak_memory,
        **recorder.skipped,
    }
