"""Checkpoints small enough to be written by the hundred."""

from __future__ import annotations

from pathlib import Path

import torch

from job.run import checkpoints
from job.run.checkpoints import Snapshot


def snapshot(step: int, best: int = 0, size: int = 8) -> Snapshot:
    tensors = {"model": {"w": torch.full((size,), float(step))}, "rng": {"0.torch": torch.arange(4)}}
    return Snapshot(step, best, tensors, {"step": step, "text": "Grüße"}, "seed: 1\n")


def publish(parent: Path, *made: Snapshot, keep: int = 9) -> None:
    for one in made:
        checkpoints.write(parent, one, keep)
