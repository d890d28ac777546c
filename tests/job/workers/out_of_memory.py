"""job/train.py on a machine whose memory ends at a number of tokens. Started by python or torchrun.

No GPU being at hand, the error is raised by hand where CUDA would raise it. Arguments: tokens that fit; the rank that
has no more (`all`: every one); where more of them fail: `forward` or `backward` of training, `evaluation`, or `copy`,
that to the device in the second step; then the flags of job/train.py. MESSAGE is the error's text. It interrupts itself
as FAULTS says (interrupted.py).
"""

import os
import sys
from collections.abc import Callable
from functools import wraps
from itertools import count
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from job.runtime import ending, environment

environment.prepare()

import torch
from transformers import BertModel

from job import train
from job.batching.collate import Tensors
from job.training import loop

if os.environ.get("FAULTS"):
    from tests.job.workers import interrupted  # noqa: F401


def with_little_memory(tokens: int, rank: str, where: str) -> None:
    forward = BertModel.forward
    message = os.environ.get("MESSAGE")

    def fail(*_: Any) -> None:
        raise RuntimeError(message) if message else torch.OutOfMemoryError("CUDA out of memory")

    @wraps(forward)
    def limited(self: Any, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        too_many = input_ids.numel() > tokens and rank in ("all", os.environ.get("RANK", "0"))
        in_step = self.training and kwargs.get("packed") is not None  # otherwise rows are computed before training
        running = "evaluation" if torch.is_inference_mode_enabled() else "forward" if in_step else "check"
        if too_many and where == running:
            fail()
        output = forward(self, input_ids, *args, **kwargs)
        if too_many and where == "backward" and in_step:
            output[0].register_hook(fail)
        return output

    setattr(BertModel, "forward", limited)  # noqa: B010
    if where == "copy":
        fail_in_second_copy(tokens, rank, fail)


def fail_in_second_copy(tokens: int, rank: str, fail: Callable[[], None]) -> None:
    moved, copies = loop.moved, count(1)

    def limited(tensors: Tensors, device: torch.device) -> Tensors:
        if tensors[0]["input_ids"].numel() > tokens and os.environ.get("RANK") == rank and next(copies) == 2:
            fail()
        return moved(tensors, device)

    loop.moved = limited


if __name__ == "__main__":
    with_little_memory(int(sys.argv[1]), *sys.argv[2:4])
    ending.end_process(train.main(sys.argv[4:]))
