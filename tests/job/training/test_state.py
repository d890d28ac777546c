"""A checkpoint restores the state of training, and the random states of every generator that a forward pass may use."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
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


def drawn() -> list[float]:
    """Numbers of every generator. The normal ones are drawn in pairs, and the second one is kept."""
    of_torch = [*torch.rand(2).tolist(), torch.randn(1).item()]
    return [*of_torch, random.random(), random.gauss(), *np.random.rand(2).tolist(), float(np.random.randn())]


@pytest.mark.parametrize("before", [0, 1])
def test_random_numbers_continue_from_the_restored_state(before: int) -> None:
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(before)
    for _ in range(before):
        drawn()
    states = state._random_states()
    expected = drawn()
    drawn()
    state._set_random_states(states)
    assert drawn() == expected


def drawn_after_resume(step: int, rank: int, saved_by: int) -> float:
    """The first random number of one of two processes that resume from a checkpoint of `saved_by` processes."""
    model: Any = torch.nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    training = TrainState(model, optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer))
    values = {"groups": optimizer.state_dict()["param_groups"], "schedule": training.schedule.state_dict(),
              "scaler": None, "processes": saved_by}  # fmt: skip
    torch.manual_seed(1)
    states = {f"{number}.{name}": value for number in range(saved_by) for name, value in state._random_states().items()}
    tensors = {state.MODEL: state.weights(model), state.OPTIMIZER: {}, state.RNG: states}
    one_of_two: Any = SimpleNamespace(
        num_processes=2, process_index=rank, scaler=None, unwrap_model=lambda model: model
    )
    state.restore(Snapshot(step, 0, tensors, values, ""), training, one_of_two)
    return torch.rand(1).item()


def test_resumed_by_another_number_of_processes_each_draws_its_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state.distributed, "broadcast_from_main", lambda _, value: value())
    monkeypatch.setattr(state.distributed, "broadcast_tensors", lambda _, tensors: tensors)
    new = [drawn_after_resume(step, rank, saved_by=4) for step in (5, 6) for rank in (0, 1)]
    assert len({*new}) == 4, "other numbers on each process and after each checkpoint"
    assert new[0] == drawn_after_resume(5, 0, saved_by=4), "the same at each start"
    assert drawn_after_resume(5, 0, saved_by=2) == drawn_after_resume(6, 0, saved_by=2) not in new
