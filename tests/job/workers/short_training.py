"""On every process: a few DDP steps of a small network with the job's own start, step and stop. Started by torchrun.

As job/train.py ends, but without the libraries that take seconds to import, so that it can be launched many times.
"""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from job.runtime import environment

environment.prepare()

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from job import distributed
from job.batching import planner
from job.config import Config
from job.training import loop
from job.training.state import TrainState


class Network(torch.nn.Module):
    """Mean of embeddings -> two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.EmbeddingBag(50, 64)
        self.classifier = torch.nn.Linear(64, 2)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.classifier(self.embedding(input_ids)))


def collate(indices: np.ndarray) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    ids = torch.arange(8).repeat(len(indices), 1) + torch.from_numpy(indices)[:, None]
    return {"input_ids": ids}, torch.from_numpy(indices).long() % 2


def steps(accelerator: Accelerator) -> None:
    network = Network()
    network, optimizer = accelerator.prepare(network, torch.optim.AdamW(network.parameters()))
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    state = TrainState(network, optimizer, schedule)
    losses_of = partial(F.cross_entropy, reduction="none")
    for indices in planner.global_batches(40, 12, 0, 6):
        plan = planner.plan_step(indices, np.full(40, 8), 32, accelerator.num_processes, 64)[accelerator.process_index]
        share = [(micro, collate(micro.indices)) for micro in plan]
        loss, _ = loop.gradients(state, share, len(indices), accelerator, losses_of)
        assert torch.isfinite(accelerator.reduce(loss, "sum"))
        optimizer.step()
        optimizer.zero_grad()


def main() -> None:
    accelerator = distributed.start(Config())
    assert accelerator.num_processes == 2
    steps(accelerator)
    distributed.stop(accelerator)


if __name__ == "__main__":
    main()
