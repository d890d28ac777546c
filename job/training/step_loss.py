"""The losses of a step: still on the device, and asked for later, when they have long been computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from job import distributed
from job.data.dataset import Split
from job.errors import NonFiniteLoss

Losses = tuple[tuple[np.ndarray, torch.Tensor], ...]
"""(indices int32[b], losses float32[b]) of micro-batches."""


@dataclass(frozen=True)
class StepLoss:
    """The losses of one step, still on the device.

    Attributes:
        step: number of the step, from 0.
        total: float32[], sum over the global batch.
        mine: of this process's micro-batches.
        finite: whether `total` is finite, asked of the device when this was made.
    """

    step: int
    total: torch.Tensor
    mine: Losses
    finite: Callable[[], bool]


def async_bool(flag: torch.Tensor) -> Callable[[], bool]:
    """Copy a flag, a bool[], to the host without blocking; the result waits for that copy alone.

    To fetch it later (`flag.item()`) would wait for all that the device has been given since.
    """
    if flag.device.type != "cuda":
        return lambda: bool(flag)
    copy = flag.to("cpu", non_blocking=True)  # into pinned memory
    copied = torch.cuda.Event()
    copied.record()

    def value() -> bool:
        copied.synchronize()
        return bool(copy)

    return value


def reject_non_finite(loss: StepLoss | None, split: Split, accelerator: Accelerator) -> None:
    """Raise NonFiniteLoss if the loss of a step is not finite, naming the examples that caused it.

    To be called one step late, when the device has computed it: at once, every step would wait.
    """
    if loss is None or loss.finite():
        return
    mine = [
        int(split.row_ids[i]) for indices, losses in loss.mine for i in indices[~torch.isfinite(losses).cpu().numpy()]
    ]
    found = sorted({row for rows in distributed.gather_objects(accelerator, mine) for row in rows})
    rows = ", ".join(map(str, found[:8])) + (", ..." if len(found) > 8 else "")
    raise NonFiniteLoss(f"the loss of step {loss.step + 1} is not finite; rows of the training data: {rows}; "
                        "lower --learning_rate, or look at these rows")  # fmt: skip
