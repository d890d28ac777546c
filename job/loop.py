"""One optimizer step, and the loop around it.

The loss of a step is the sum over the examples of its global batch, divided by their number: the same gradient on one
process or many, and however the batch is cut. The usual ways (mean per micro-batch, divided by the number of
accumulation steps) weigh examples by the cut, and the last batch of an epoch wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.optim.lr_scheduler import LRScheduler

from job import batches, memory
from job.batches import MicroBatch
from job.collate import Collate
from job.config import Training
from job.data import Split
from job.errors import NonFiniteLoss
from job.labels import CLASSES, REGRESSION, SEVERAL, Kind
from job.tracking import Tracker


@dataclass(frozen=True)
class Trainee:
    """What a step changes: the prepared model (DDP where there are several processes), optimizer, and schedule."""

    model: torch.nn.Module
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler


@dataclass(frozen=True)
class StepLoss:
    """The losses of one step, still on the device.

    Attributes:
        step: number of the step, from 0.
        total: float32[], sum over the global batch.
        mine: (indices int64[b], losses float32[b]) of this process's micro-batches.
    """

    step: int
    total: torch.Tensor
    mine: tuple[tuple[np.ndarray, torch.Tensor], ...]


AfterStep = Callable[[float, StepLoss], bool]
"""Called with the epoch (passes over the data so far) and the loss of the step; says whether to stop early."""


def gradients(
    trainee: Trainee,
    collate: Collate,
    plan: Sequence[MicroBatch],
    examples: int,
    accelerator: Accelerator,
    kind: Kind = CLASSES,
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, tuple[tuple[np.ndarray, torch.Tensor], ...]]:
    """Forward and backward of this process's share of a global batch of `examples`; gradients end up in `.grad`.

    Returns:
        float32[]: the loss summed over this process's examples; and (indices, losses) of each micro-batch.

    Raises:
        memory.Exhausted: on every process; what is in `.grad` is then of no use.
    """
    scale = accelerator.num_processes / examples  # DDP averages over processes; the sum is wanted
    total = torch.zeros((), device=accelerator.device)
    seen = []

    def loss_of(micro: MicroBatch) -> torch.Tensor:
        inputs, labels = collate(micro.indices)
        logits = trainee.model(**inputs).logits
        assert labels is not None
        losses = example_losses(logits.float(), labels, kind, label_smoothing)
        loss = losses.sum() * micro.weight
        total.add_(loss.detach())
        seen.append((micro.indices, losses.detach()))
        return loss * scale

    def all_but_the_last() -> None:
        with accelerator.no_sync(trainee.model):
            for micro in plan[:-1]:
                accelerator.backward(loss_of(micro))

    if len(plan) > 1:
        memory.agreed(accelerator, all_but_the_last)  # before the last forward: DDP's own collectives are in there
    accelerator.backward(memory.agreed(accelerator, lambda: loss_of(plan[-1])))
    return total, tuple(seen)


def example_losses(logits: torch.Tensor, labels: torch.Tensor, kind: Kind, label_smoothing: float) -> torch.Tensor:
    """float32[b], the loss of each example: cross-entropy, squared error, or binary cross-entropy, mean over classes.

    Args:
        logits: float32[b, C]; [b, 1] for regression.
        labels: as Collate gives them.
        kind: of the task.
        label_smoothing: for cross-entropy only.
    """
    if kind == REGRESSION:
        return (logits[:, 0] - labels) ** 2
    if kind == SEVERAL:
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(dim=1)
    return F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)


def train(
    trainee: Trainee,
    split: Split,
    collate: Collate,
    training: Training,
    steps: int,
    max_tokens: int,
    overhead: int,
    accelerator: Accelerator,
    kind: Kind,
    tracker: Tracker,
    after_step: AfterStep,
    packed: bool,
    halved: Callable[[int], None],
) -> None:
    """Run the optimizer steps from `tracker.step` to `steps`, calling `after_step` after each.

    `halved` is told a new limit of tokens where a step did not fit into memory.

    Raises:
        NonFiniteLoss: on every process, at most one step after the loss was infinite or not a number.
        OutOfMemory: on every process.
    """

    def attempt(indices: np.ndarray, limit: int) -> tuple[list[list[MicroBatch]], Any]:
        hands = batches.plan_step(indices, split.computed, limit, accelerator.num_processes, overhead, packed)
        plan, smoothing = hands[accelerator.process_index], training.label_smoothing_factor
        return hands, gradients(trainee, collate, plan, len(indices), accelerator, kind, smoothing)

    def forget() -> None:
        """Of an attempt that failed: its gradients, and that DDP awaits a backward pass where the forward succeeded."""
        trainee.optimizer.zero_grad(set_to_none=True)
        if accelerator.num_processes > 1:
            shortest = [MicroBatch(np.array([split.lengths.argmin()]))]
            settle_gradient_buckets(trainee, collate, shortest, accelerator, kind)

    per_epoch = batches.steps_per_epoch(len(split), training.train_batch_size)
    before: StepLoss | None = None
    trainee.model.train()
    start = tracker.step
    order = batches.global_batches(len(split), training.train_batch_size, training.seed, steps, start)
    for step, indices in enumerate(order, start):
        (hands, (mine, seen)), max_tokens = memory.fitting(
            partial(attempt, indices), max_tokens, int(split.computed.max()), forget, halved
        )
        loss = StepLoss(step, accelerator.reduce(mine, "sum"), seen)
        refuse_non_finite(before, split, accelerator)
        before = loss
        grad_norm = accelerator.clip_grad_norm_(trainee.model.parameters(), training.max_grad_norm or float("inf"))
        learning_rate = float(trainee.schedule.get_last_lr()[0])
        trainee.optimizer.step()
        trainee.schedule.step()
        trainee.optimizer.zero_grad(set_to_none=True)
        epoch = (step + 1) / per_epoch
        tracker.train_step(
            loss=loss.total,
            grad_norm=grad_norm,
            learning_rate=learning_rate,
            epoch=epoch,
            examples=len(indices),
            tokens=batches.tokens_of(
                [micro for hand in hands for micro in hand], split.lengths, split.computed, packed
            ),
        )
        if step + 1 == steps:
            refuse_non_finite(before, split, accelerator)
        if after_step(epoch, loss):
            break
        trainee.model.train()


def refuse_non_finite(loss: StepLoss | None, split: Split, accelerator: Accelerator) -> None:
    """Raise if the loss of a step is not finite, naming the examples that caused it.

    Read one step late, when the device has long computed it: reading at once would make every step wait.
    """
    if loss is None or torch.isfinite(loss.total).item():
        return
    mine = [
        int(split.index[i]) for indices, losses in loss.mine for i in indices[~torch.isfinite(losses).cpu().numpy()]
    ]
    found = sorted(set(gather_object(mine) if accelerator.num_processes > 1 else mine))
    rows = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
    raise NonFiniteLoss(f"the loss of step {loss.step + 1} is not finite; rows of the training data: {rows}; "
                        "lower --learning_rate, or look at these rows")  # fmt: skip


def settle_gradient_buckets(
    trainee: Trainee, collate: Collate, plan: Sequence[MicroBatch], accelerator: Accelerator, kind: Kind
) -> None:
    """One backward pass that changes nothing, so that DDP cuts its messages as it does from the second step on.

    DDP lays its buckets out anew after its first backward pass, and with three or more processes the layout decides
    the order of summation: without this, the first step after an interruption would differ in the last bits.
    """
    gradients(trainee, collate, plan, 1, accelerator, kind)
    trainee.optimizer.zero_grad(set_to_none=True)
