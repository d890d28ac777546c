"""A step queues work on the device and never waits for it."""

from __future__ import annotations

import contextlib
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from job.batching import collate, planner
from job.batching.collate import PackedFormat, Padding
from job.batching.planner import PADDED, Shape
from job.config import Training
from job.config.tasks import SINGLE_LABEL, Task
from job.model import packing
from job.training import loop, objective
from job.training.state import TrainState
from job.training.step_loss import async_bool
from tests.support.pairs import LENGTHS, PAD, network, pairs

NOWHERE = torch.device("meta")
"""A device that computes shapes only: whoever asks it for a value, and would wait for a GPU, gets an error."""


def on_nowhere() -> Any:
    """The facts of an Accelerator that a step needs."""
    return SimpleNamespace(
        device=NOWHERE,
        num_processes=1,
        no_sync=lambda model: contextlib.nullcontext(),
        backward=lambda loss: loss.backward(),
    )


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_no_step_waits_for_the_device(tmp_path: Path, architecture: str, packed: bool) -> None:
    trained = network(tmp_path, architecture, dropout=0.1).train()
    split = pairs(SINGLE_LABEL, architecture)
    make = partial(collate.padded, split, Padding(PAD))
    if packed:
        form = PackedFormat(PAD, packing.padding_position(trained), 1, longest=max(LENGTHS), with_lengths=False)
        packing.enable(trained)
        make = partial(collate.packed, split, form)
    trained.to(NOWHERE, torch.bfloat16 if packed else torch.float32)  # of whose kernel PyTorch knows the shapes
    state = TrainState(trained, torch.optim.AdamW(trained.parameters()), None)  # type: ignore[arg-type]
    plan = planner.plan_step(np.arange(len(split)), split.lengths, 128, 1, 64, Shape("packed") if packed else PADDED)[0]
    share = [(micro, make(micro.indices)) for micro in plan]
    losses_of = objective.objective(Task(SINGLE_LABEL, ()), Training(), split, NOWHERE).losses
    total, seen = loop.gradients(state, share, len(split), on_nowhere(), losses_of)
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
    assert len(plan) > 1 and len(seen) == len(plan)
    assert {total.device, norm.device, *(losses.device for _, losses in seen)} == {NOWHERE}


def test_a_wait_is_detected() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        torch.isfinite(torch.zeros((), device=NOWHERE)).item()


def test_async_bool_reports_whether_a_loss_is_finite() -> None:
    assert async_bool(torch.isfinite(torch.tensor(1.0)))()
    assert not async_bool(torch.isfinite(torch.tensor(float("nan"))))()
