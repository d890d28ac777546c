"""job/train.py on a machine whose memory ends at a number of tokens. Started by python or torchrun.

No GPU being at hand, the error is raised by hand where CUDA would raise it: in the forward pass of training.
Arguments: tokens that fit, the rank that has no more (`all`: every one), then those of job/train.py. It interrupts
itself as FAULTS says (interrupted.py beside this file).
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from job.runtime import environment

environment.prepare()

import torch
from transformers import BertModel

from job import train

if os.environ.get("FAULTS"):
    from tests.job.workers import interrupted  # noqa: F401


def with_little_memory(tokens: int, rank: str) -> None:
    forward = BertModel.forward

    def limited(self: Any, input_ids: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.training and input_ids.numel() > tokens and rank in ("all", os.environ.get("RANK", "0")):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, input_ids, *args, **kwargs)

    BertModel.forward = limited


if __name__ == "__main__":
    with_little_memory(int(sys.argv[1]), sys.argv[2])
    sys.exit(train.main(sys.argv[3:]))
