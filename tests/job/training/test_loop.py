"""A step queues work on the device and never waits for it; the loop notices what is not finite or does not fit."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from job.batching import collate, oom, planner
from job.batching.collate import PackedFormat, Padding
from job.batching.loader import BatchLoader, StepBatch
from job.batching.planner import PADDED, Shape
from job.config import Config, Training
from job.config.tasks import SINGLE_LABEL, Task
from job.errors import NonFiniteLoss
from job.model import packing
from job.training import loop, objective
from job.training.state import TrainState
from job.training.step_loss import StepLoss, async_bool
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
    finite = loop._finite(total, norm, SimpleNamespace(scaler=None))
    assert {total.device, norm.device, finite.device, *(losses.device for _, losses in seen)} == {NOWHERE}


def test_a_wait_is_detected() -> None:
    with pytest.raises(RuntimeError, match="meta"):
        torch.isfinite(torch.zeros((), device=NOWHERE)).item()


def test_async_bool_reports_whether_a_loss_is_finite() -> None:
    assert async_bool(torch.isfinite(torch.tensor(1.0)))()
    assert not async_bool(torch.isfinite(torch.tensor(float("nan"))))()


def train(folder: Path, broken: Callable[[int], bool] = lambda step: False) -> list[tuple[int, bool]]:
    """Four steps; in the `broken` ones, counted from 1, a gradient is NaN. What is known after each: (step, finite)."""
    done: list[tuple[int, bool]] = []
    trained = network(folder)
    form = SimpleNamespace(shape=PADDED, collate=lambda split: partial(collate.padded, split, Padding(PAD)))
    accelerator = Accelerator(cpu=True)
    loader = BatchLoader(pairs(SINGLE_LABEL), form, accelerator)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    tracker: Any = SimpleNamespace(step=0, steps=4, train_step=lambda **numbers: None)
    context: Any = SimpleNamespace(
        config=Config(training=replace(Training(), train_batch_size=4)), accelerator=accelerator
    )
    wanted = objective.objective(Task(SINGLE_LABEL, ()), Training(), loader.split, accelerator.device)

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.nan if broken(len(done) + 1) else gradient

    def after_step(epoch: float, loss: StepLoss) -> bool:
        done.append((loss.step + 1, loss.finite()))
        return False

    trained.classifier.weight.register_hook(spoil)
    with contextlib.suppress(NonFiniteLoss):
        loop.train(context, TrainState(trained, optimizer, schedule), loader, wanted, 1000, tracker, after_step)
    return done


def test_a_gradient_that_is_not_finite_is_noticed_before_its_step_is_saved(tmp_path: Path) -> None:
    assert train(tmp_path / "whole") == [(step, True) for step in range(1, 5)]
    assert train(tmp_path / "broken", lambda step: step == 2) == [(1, True), (2, False)]
    assert train(tmp_path / "last", lambda step: step == 4) == [(step, True) for step in range(1, 4)]


def test_gradients_that_the_scaler_skips_do_not_count() -> None:
    loss, norm = torch.tensor(1.0), torch.tensor(torch.inf)
    with_scaler, without = (SimpleNamespace(scaler=scaler) for scaler in (object(), None))
    assert loop._finite(loss, norm, with_scaler)
    assert not loop._finite(loss, norm, without)
    assert not loop._finite(norm, loss, with_scaler)


def test_after_out_of_memory_only_the_batch_in_preparation_is_prepared_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, step, gradients = threading.main_thread(), BatchLoader.step, loop.gradients
    again: list[int] = []
    attempts: list[int] = []

    def counted(self: BatchLoader, examples: np.ndarray, limit: int) -> StepBatch:
        if threading.current_thread() is here:
            again.append(limit)
        return step(self, examples, limit)

    def failing_once(state: TrainState, share: Any, *args: Any) -> Any:
        if not attempts:
            attempts.append(1)
            raise oom.Exhausted
        return gradients(state, share, *args)

    monkeypatch.setattr(BatchLoader, "step", counted)
    monkeypatch.setattr(loop, "gradients", failing_once)
    monkeypatch.setattr(loop, "_keep_limit", lambda context, tracker, limit: None)
    assert len(train(tmp_path)) == 4
    assert again in ([500], [500, 500])
