"""AdamW and its learning rate schedule.

The schedule counts optimizer steps, for any number of processes. It is not passed to `accelerator.prepare`: a prepared
scheduler steps once per process, so the learning rate would depend on the number of processes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from job import checks
from job.batching import planner
from job.config import Training
from job.errors import Refused
from job.model import depth

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def total_steps(training: Training, examples: int) -> int:
    """The number of optimizer steps: max_steps, or the steps of all epochs (fractions of an epoch are rounded up)."""
    if training.max_steps is not None:
        return training.max_steps
    return _ceil(training.num_train_epochs * planner.steps_per_epoch(examples, training.train_batch_size))


def optimizer(model: PreTrainedModel, training: Training) -> torch.optim.AdamW:
    """AdamW with weight decay for matrices and embeddings, and without for biases and norms (one dimension).

    With --layer_lr_decay d, each layer has d times the learning rate of the next one, as in ELECTRA and BEiT. The
    head's parameter groups come first, because the learning rate of the first group is logged.

    The fused kernel needs one pass over the weights: a fifth of the time of the default one, on CPUs too.

    Raises:
        Refused: --layer_lr_decay is set, but the model has no list of layers.
    """
    groups: list[dict[str, Any]] = []
    for rate, parameters in _by_rate(model, training):
        matrices, vectors = ([p for p in parameters if (p.ndim >= 2) == decays] for decays in (True, False))
        groups += [
            {"params": matrices, "weight_decay": training.weight_decay, "lr": rate},
            {"params": vectors, "weight_decay": 0.0, "lr": rate},
        ]
    return torch.optim.AdamW(groups, lr=training.learning_rate, fused=True)


def _by_rate(model: PreTrainedModel, training: Training) -> list[tuple[float, list[torch.nn.Parameter]]]:
    """Learning rates and their parameters, from the head to the embeddings; one entry without layer-wise rates."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if training.layer_lr_decay == 1.0:
        return [(training.learning_rate, list(trained.values()))]
    depths = _depths(model)
    rates = layer_rates(training, depths.layers)
    occurring = sorted(set(depths.of.values()), reverse=True)
    return [(rates[d], [p for name, p in trained.items() if depths.of[name] == d]) for d in occurring]


def _depths(model: PreTrainedModel) -> depth.Depths:
    depths = depth.depths(model)
    if not depths.layers:
        raise Refused(f"--layer_lr_decay: {type(model).__name__} has no list of layers: leave it out")
    return depths


def layer_rates(training: Training, layers: int) -> list[float]:
    """The peak learning rates of the embeddings, of each layer, and of the head."""
    return [training.learning_rate * training.layer_lr_decay ** (layers + 1 - depth) for depth in range(layers + 2)]


def describe_rates(model: PreTrainedModel, training: Training) -> str | None:
    """The peak learning rates for the log, from the embeddings to the head; None if all parameters have the same."""
    if training.layer_lr_decay == 1.0:
        return None
    depths = _depths(model)
    rates = layer_rates(training, depths.layers)
    layers = " ".join(f"{rate:.3g}" for rate in rates[1:-1])
    which = f"layers (1 to {depths.layers})" if depths.layers > 1 else "layer"
    if depths.sharing is not None:
        which = f"the weights shared by {depths.sharing} layers"
    shown = [f"embeddings {rates[0]:.3g}"] * (0 in depths.of.values()) + [f"{which} {layers}", f"head {rates[-1]:.3g}"]
    return ", ".join(shown)


def allocate_moments(optimizer: torch.optim.Optimizer) -> None:
    """Allocate AdamW's state before the first step, so that running out of memory shows in the first step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            moments = (torch.zeros_like(parameter, memory_format=torch.preserve_format) for _ in range(2))
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            optimizer.state[parameter] = dict(zip(("step", "exp_avg", "exp_avg_sq"), (step, *moments), strict=True))


def schedule(optimizer: torch.optim.Optimizer, training: Training, steps: int) -> LRScheduler:
    """The learning rate schedule over `steps` optimizer steps, including warmup, whose first step has a rate of 0.

    The warmup of a ratio is rounded down, not up as in the Trainer: a run of one step would train nothing.

    Raises:
        Refused: no step would have the peak learning rate.
    """
    from transformers import get_scheduler

    checks.refuse_warmup_to_the_end(training, steps)
    warmup = training.warmup_steps if training.warmup_steps is not None else _floor(training.warmup_ratio * steps)
    return get_scheduler(training.lr_scheduler_type, optimizer, num_warmup_steps=warmup, num_training_steps=steps)


def _ceil(value: float) -> int:
    """Round up, ignoring float errors: 0.07 * 100 is 7.000000000000001, and gives 7."""
    return math.ceil(round(value, 9))


def _floor(value: float) -> int:
    """Round down, ignoring float errors: 0.29 * 100 is 28.999999999999996, and gives 29."""
    return math.floor(round(value, 9))
