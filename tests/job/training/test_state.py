"""A checkpoint restores the state of training."""

from __future__ import annotations

from pathlib import Path

import torch
from accelerate import Accelerator

from job.run import checkpoints
from job.run.checkpoints import Snapshot
from job.training import state
from job.training.state import TrainState


def trained() -> TrainState:
    """Of a model that was trained for a step."""
    model = torch.nn.Linear(64, 64)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    return TrainState(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer))


def test_a_restored_state_keeps_no_file_of_the_checkpoint_open(tmp_path: Path) -> None:
    """Over NFS a checkpoint could not be removed later."""
    accelerator, before, after = Accelerator(cpu=True), trained(), trained()
    tensors, values = state.capture(before, accelerator)
    checkpoints.write(tmp_path, Snapshot(1, 0, tensors, values, ""), keep=1)
    snapshot = checkpoints.read(tmp_path / "step-00000001")
    assert str(tmp_path) in Path("/proc/self/maps").read_text()
    state.restore(snapshot, after, accelerator)
    del snapshot
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
    one, other = (each.optimizer.state_dict()["state"][0] for each in (before, after))
    assert all(torch.equal(one[key], other[key]) for key in ("step", "exp_avg", "exp_avg_sq"))
