"""One optimizer step, and the loop around it.

The loss of a step is the sum over the examples of its global batch, divided by their number, or by the sum of their
weights (job/training/objective.py). This gives the same gradient on one process or many, however the batch is split.
The usual way, the mean per micro-batch divided by the number of accumulation steps, weights examples by the size of
their micro-batch, and the last batch of an epoch wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator

from job.batching import oom, planner
from job.batching.collate import Tensors, moved
from job.batching.loader import BatchLoader, Collated, StepBatch
from job.batching.planner import MicroBatch
from job.run import manifest
from job.run.context import RunContext
from job.run.tracking import Recorder
from job.runtime.console import log
from job.training.objective import ExampleLosses, Objective
from job.training.state import TrainState
from job.training.step_loss import Losses, StepLoss, async_bool, reject_non_finite

AfterStep = Callable[[float, StepLoss], bool]
"""Called with the epoch (passes over the data so far) and the loss of the step; returns whether to stop early."""


def gradients(
    state: TrainState, share: Sequence[Collated], divisor: float, accelerator: Accelerator, losses_of: ExampleLosses
) -> tuple[torch.Tensor, Losses]:
    """Forward and backward passes of this process's share of a global batch, accumulating into `.grad`.

    `divisor`: divides the sum of the losses over the whole global batch.

    Returns:
        float32[]: the loss summed over this process's examples; and the losses of each micro-batch.

    Raises:
        oom.Exhausted: on every process; `.grad` is then invalid.
        OutOfMemoryInExchange: on this process alone.
    """
    scale = accelerator.num_processes / divisor  # DDP averages over processes; the sum is needed
    total = torch.zeros((), device=accelerator.device)
    seen = []

    def loss_of(micro: MicroBatch, tensors: Tensors) -> torch.Tensor:
        inputs, labels = moved(tensors, accelerator.device)
        logits = state.model(**inputs).logits
        assert labels is not None
        losses = losses_of(logits.float(), labels)
        loss = losses.sum() * micro.weight
        total.add_(loss.detach())
        seen.append((micro.indices, losses.detach()))
        return loss * scale

    def backward(part: Sequence[Collated]) -> None:
        with accelerator.no_sync(state.model):
            for one in part:
                accelerator.backward(loss_of(*one))

    if accelerator.num_processes == 1:
        oom.agreed(accelerator, lambda: backward(share))
        return total, tuple(seen)
    if len(share) > 1:
        oom.agreed(accelerator, lambda: backward(share[:-1]))
    last = oom.agreed(accelerator, lambda: loss_of(*share[-1]))
    with oom.exchanging():
        accelerator.backward(last)
    return total, tuple(seen)


def train(
    context: RunContext,
    state: TrainState,
    loader: BatchLoader,
    objective: Objective,
    max_tokens: int,
    recorder: Recorder,
    after_step: AfterStep,
) -> None:
    """Run the optimizer steps from `recorder.step` to `recorder.steps`, calling `after_step` after each.

    Raises:
        NonFiniteLoss: on every process, at most one step after the loss or a gradient became infinite or NaN.
        OutOfMemory: on every process.
    """
    training, accelerator, split = context.config.training, context.accelerator, loader.split

    def attempt(batch: StepBatch, limit: int) -> tuple[StepBatch, torch.Tensor, Losses]:
        now = batch if batch.limit == limit else loader.step(batch.examples, limit)
        return now, *gradients(state, now.mine, objective.divisor(now.examples), accelerator, objective.losses)

    forget = partial(_forget_attempt, state, loader, objective.losses)
    halved = partial(_keep_limit, context, recorder)
    start, before = recorder.step, None
    order = planner.global_batches(len(split), training.train_batch_size, training.seed, recorder.steps, start)
    state.model.train()
    with loader.steps(order, lambda: max_tokens) as batches:
        for step, batch in enumerate(batches, start):
            (done, mine, seen), max_tokens = oom.fitting(
                partial(attempt, batch), max_tokens, loader.longest, forget, halved
            )
            total = accelerator.reduce(mine, "sum")
            reject_non_finite(before, split, accelerator)
            norm, learning_rate = _update(state, training.max_grad_norm, accelerator)
            before = loss = StepLoss(step, total, seen, async_bool(_finite(total, norm, accelerator)))
            epoch = (step + 1) / planner.steps_per_epoch(len(split), training.train_batch_size)
            recorder.train_step(
                loss=(total, objective.divisor(done.examples)), grad_norm=norm, learning_rate=learning_rate,
                epoch=epoch, examples=len(done.examples), tokens=done.tokens,
            )  # fmt: skip
            if step + 1 == recorder.steps:
                reject_non_finite(loss, split, accelerator)
            if after_step(epoch, loss):
                break
            state.model.train()


def settle_gradient_buckets(state: TrainState, loader: BatchLoader, losses_of: ExampleLosses) -> None:
    """Two passes of the shortest example that change nothing, so that DDP lays its buckets out before the first step.

    DDP lays them out again in the first forward pass after its first backward pass, and broadcasts the layout. Inside a
    step, a process that ran out of memory just before that would leave the others waiting. And with three or more
    processes the layout decides the order of summation: the first step after a resume would differ in the last bits.
    """
    if loader.accelerator.num_processes > 1:
        shortest = loader.collated([MicroBatch(np.array([loader.split.lengths.argmin()]))])
        for _ in range(2):
            gradients(state, shortest, 1, loader.accelerator, losses_of)
        state.optimizer.zero_grad(set_to_none=True)


def _update(state: TrainState, max_grad_norm: float, accelerator: Accelerator) -> tuple[torch.Tensor, float]:
    """Clip the gradients and update the weights; returns the gradients' norm and the learning rate of this step."""
    norm = accelerator.clip_grad_norm_(state.model.parameters(), max_grad_norm or float("inf"))
    learning_rate = float(state.schedule.get_last_lr()[0])
    state.optimizer.step()
    state.schedule.step()
    state.optimizer.zero_grad(set_to_none=True)
    return norm, learning_rate


def _finite(loss: torch.Tensor, norm: torch.Tensor, accelerator: Accelerator) -> torch.Tensor:
    """bool[]: whether the loss and the gradients' norm are finite; in fp16 the scaler skips steps by the gradients."""
    finite = torch.isfinite(loss)
    return finite if accelerator.scaler is not None else finite & torch.isfinite(norm)


def _forget_attempt(state: TrainState, loader: BatchLoader, losses_of: ExampleLosses) -> None:
    """Discard a failed attempt: its gradients, and DDP's wait for a backward pass if the forward pass succeeded."""
    state.optimizer.zero_grad(set_to_none=True)
    settle_gradient_buckets(state, loader, losses_of)


def _keep_limit(context: RunContext, recorder: Recorder, limit: int) -> None:
    """Log the lower token limit and record it for the next start."""
    if context.accelerator.is_main_process:
        step = recorder.step + 1
        log.warning(f"out of memory in step {step}: retrying with {limit} tokens per forward pass, same examples")
        manifest.keep_token_limit(context.folder, limit, context.config.training.max_tokens_per_device)
