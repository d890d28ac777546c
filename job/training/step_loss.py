"""The losses of a step, kept on the device and read one step later, so that the host does not wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator

from job import distributed
from job.data.dataset import Split, row_numbers
from job.errors import NonFiniteLoss

Losses = tuple[tuple[np.ndarray, torch.Tensor], ...]
"""(indices int32[b], losses float32[b]) of micro-batches."""


@dataclass(frozen=True)
class StepLoss:
    """The losses of one step, still on the device.

    Attributes:
        step: number of the step, from 0.
        total: float32[], sum over the global batch.
        mine: losses of this process's micro-batches.
        finite: returns whether `total` and the gradient are finite; the copy to the host was started when this was
            created.
    """

    step: int
    total: torch.Tensor
    mine: Losses
    finite: Callable[[], bool]


def async_bool(flag: torch.Tensor) -> Callable[[], bool]:
    """Copy a flag, a bool[], to the host without blocking; calling the result waits only for that copy.

    A later `flag.item()` would wait for all work queued on the device since.
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
    """Raise NonFiniteLoss if the loss of a step is not finite, naming the examples that caused it, or its gradient.

    Call it one step late, when the loss has been computed; otherwise every step would wait for the device.
    """
    if loss is None or loss.finite():
        return
    mine = [
        int(split.row_ids[i]) for indices, losses in loss.mine for i in indices[~torch.isfinite(losses).cpu().numpy()]
    ]
    found = sorted({row for rows in distributed.gather_objects(accelerator, mine) for row in rows})
    if not found:
        raise NonFiniteLoss(f"the gradient of step {loss.step + 1} is not finite, though its loss is: lower "
                            "--learning_rate, or use a wider --mixed_precision")  # fmt: skip
    raise NonFiniteLoss(f"the loss of step {loss.step + 1} is not finite for rows {row_numbers(found)} of the training "
                        "data: lower --learning_rate, or check these rows")  # fmt: skip
