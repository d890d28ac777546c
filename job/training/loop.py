"""One optimizer step, and the loop around it.

The loss of a step is the sum over the examples of its global batch, divided by their number: the same gradient on one
process or many, and however the batch is cut. The usual ways (mean per micro-batch, divided by the number of
accumulation steps) weigh examples by the cut, and the last batch of an epoch wrongly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.optim.lr_scheduler import LRScheduler

from job.batching import planner
from job.batching.collate import Collate, Tensors, moved
from job.batching.loader import Preparation, Prepared, Ready, ready
from job.batching.planner import MicroBatch, Shape
from job.batching.prefetch import one_ahead
from job.config import Training
from job.config.tasks import SINGLE_LABEL, Kind
from job.data.dataset import Split
from job.errors import NonFiniteLoss
from job.model.outputs import outputs_of
from job.run.tracking import Tracker
from job.training import oom

Losses = tuple[tuple[np.ndarray, torch.Tensor], ...]
"""(indices int32[b], losses float32[b]) of micro-batches."""


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
        mine: of this process's micro-batches.
        finite: whether `total` is, asked of the device when this was made.
    """

    step: int
    total: torch.Tensor
    mine: Losses
    finite: Callable[[], bool]


AfterStep = Callable[[float, StepLoss], bool]
"""Called with the epoch (passes over the data so far) and the loss of the step; says whether to stop early."""


def gradients(
    trainee: Trainee,
    share: Sequence[Ready],
    examples: int,
    accelerator: Accelerator,
    kind: Kind = SINGLE_LABEL,
    label_smoothing: float = 0.0,
) -> tuple[torch.Tensor, Losses]:
    """Forward and backward of this process's share of a global batch of `examples`; gradients end up in `.grad`.

    Returns:
        float32[]: the loss summed over this process's examples; and the losses of each micro-batch.

    Raises:
        memory.Exhausted: on every process; what is in `.grad` is then of no use.
    """
    scale = accelerator.num_processes / examples  # DDP averages over processes; the sum is wanted
    total = torch.zeros((), device=accelerator.device)
    seen = []
    losses_of = outputs_of(kind).training_losses

    def loss_of(micro: MicroBatch, tensors: Tensors) -> torch.Tensor:
        inputs, labels = moved(tensors, accelerator.device)
        logits = trainee.model(**inputs).logits
        assert labels is not None
        losses = losses_of(logits.float(), labels, label_smoothing)
        loss = losses.sum() * micro.weight
        total.add_(loss.detach())
        seen.append((micro.indices, losses.detach()))
        return loss * scale

    def all_but_the_last() -> None:
        with accelerator.no_sync(trainee.model):
            for one in share[:-1]:
                accelerator.backward(loss_of(*one))

    if len(share) > 1:
        oom.agreed(accelerator, all_but_the_last)  # before the last forward: DDP's own collectives are in there
    accelerator.backward(oom.agreed(accelerator, lambda: loss_of(*share[-1])))
    return total, tuple(seen)


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
    shape: Shape,
    halved: Callable[[int], None],
) -> None:
    """Run the optimizer steps from `tracker.step` to `steps`, calling `after_step` after each.

    `shape` is that of the micro-batches; `halved` is told a new limit of tokens
    where a step did not fit into memory.

    Raises:
        NonFiniteLoss: on every process, at most one step after the loss was infinite or not a number.
        OutOfMemory: on every process.
    """
    prepare = Preparation(split, collate, overhead, shape, accelerator)
    per_epoch = planner.steps_per_epoch(len(split), training.train_batch_size)
    start, before = tracker.step, None
    order = planner.global_batches(len(split), training.train_batch_size, training.seed, steps, start)

    def attempt(prepared: Prepared, limit: int) -> tuple[Prepared, torch.Tensor, Losses]:
        now = prepared if prepared.limit == limit else prepare(prepared.examples, limit)
        return now, *gradients(trainee, now.mine, len(now.examples), accelerator, kind, training.label_smoothing_factor)

    forget = partial(_forget_attempt, trainee, split, collate, accelerator, kind)
    trainee.model.train()
    with one_ahead(prepare(examples, max_tokens) for examples in order) as coming:
        for step, prepared in enumerate(coming, start):
            (done, mine, seen), max_tokens = oom.fitting(
                partial(attempt, prepared), max_tokens, prepare.longest, forget, halved
            )
            total = accelerator.reduce(mine, "sum")
            loss = StepLoss(step, total, seen, told_later(torch.isfinite(total)))
            refuse_non_finite(before, split, accelerator)
            before = loss
            norm, learning_rate = _update(trainee, training.max_grad_norm, accelerator)
            epoch = (step + 1) / per_epoch
            tracker.train_step(
                loss=total, grad_norm=norm, learning_rate=learning_rate, epoch=epoch,
                examples=len(done.examples), tokens=done.tokens,
            )  # fmt: skip
            if step + 1 == steps:
                refuse_non_finite(loss, split, accelerator)
            if after_step(epoch, loss):
                break
            trainee.model.train()


def _update(trainee: Trainee, max_grad_norm: float, accelerator: Accelerator) -> tuple[torch.Tensor, float]:
    """Clip the gradients and change the weights; the norm that they had, and the learning rate of this step."""
    norm = accelerator.clip_grad_norm_(trainee.model.parameters(), max_grad_norm or float("inf"))
    learning_rate = float(trainee.schedule.get_last_lr()[0])
    trainee.optimizer.step()
    trainee.schedule.step()
    trainee.optimizer.zero_grad(set_to_none=True)
    return norm, learning_rate


def _forget_attempt(trainee: Trainee, split: Split, collate: Collate, accelerator: Accelerator, kind: Kind) -> None:
    """Of an attempt that failed: its gradients, and that DDP awaits a backward pass where the forward succeeded."""
    trainee.optimizer.zero_grad(set_to_none=True)
    if accelerator.num_processes > 1:
        shortest = [MicroBatch(np.array([split.lengths.argmin()]))]
        settle_gradient_buckets(trainee, collate, shortest, accelerator, kind)


def told_later(flag: torch.Tensor) -> Callable[[], bool]:
    """What the device will find `flag` to be, a bool[], for the host to ask once it is long computed.

    The answer is sent on its way now. To fetch it later (`flag.item()`) would wait for all that the device has been
    given since.
    """
    if flag.device.type != "cuda":
        return lambda: bool(flag)
    answer = flag.to("cpu", non_blocking=True)  # into pinned memory
    arrived = torch.cuda.Event()
    arrived.record()

    def told() -> bool:
        arrived.synchronize()
        return bool(answer)

    return told


def refuse_non_finite(loss: StepLoss | None, split: Split, accelerator: Accelerator) -> None:
    """Raise if the loss of a step is not finite, naming the examples that caused it.

    Asked one step late, when the device has long computed it: asking at once would make every step wait.
    """
    if loss is None or loss.finite():
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
    gradients(trainee, ready(plan, collate, accelerator.device), 1, accelerator, kind)
    trainee.optimizer.zero_grad(set_to_none=True)
