"""A step has the gradient and the loss of its global batch and never waits for the device; the loop notices what is not
finite or does not fit."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator

from job.batching import collate, oom, planner
from job.batching.collate import PackedFormat, Padding
from job.batching.forms import Form
from job.batching.loader import BatchLoader, StepBatch
from job.batching.planner import PADDED, Shape
from job.config import Config, Training
from job.config.tasks import SINGLE_LABEL, Task
from job.errors import NonFiniteLoss
from job.model import packing
from job.training import loop, objective
from job.training import optimizer as optim
from job.training.state import TrainState
from job.training.step_loss import StepLoss, async_bool
from tests.support.pairs import LENGTHS, NAMES, PAD, network, pairs

CPU = torch.device("cpu")
NOWHERE = torch.device("meta")
"""A device that computes shapes only: whoever asks it for a value, and would wait for a GPU, gets an error."""


def on_nowhere() -> Any:
    """The facts of an Accelerator that a step needs."""
    return alone(NOWHERE)


def alone(device: torch.device) -> Any:
    return SimpleNamespace(
        device=device,
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


# ---------------------------------------------------------------------------------------------------------------------
# The gradient and the update


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_processes_without_rows_of_their_own_add_nothing_to_the_gradient(tmp_path: Path, rows: int) -> None:
    split, model = pairs(SINGLE_LABEL), network(tmp_path)
    state = TrainState(model, torch.optim.AdamW(model.parameters()), None)  # type: ignore[arg-type]
    losses_of = objective.objective(Task(SINGLE_LABEL, ()), Training(), split, CPU).losses

    def of(world: int) -> tuple[float, dict[str, torch.Tensor]]:
        plan = planner.plan_step(np.arange(rows), split.lengths, 512, world, 0)
        assert any(not micro.weight for share in plan for micro in share) == (rows < world)
        shares = [[(micro, collate.padded(split, Padding(PAD), micro.indices)) for micro in share] for share in plan]
        model.zero_grad()
        loss = sum(float(loop.gradients(state, share, rows, alone(CPU), losses_of)[0]) for share in shares)
        return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    torch.testing.assert_close(of(world=4), of(world=1))


@pytest.mark.parametrize(("max_grad_norm", "length"), [(1.0, 1.0), (0.5, 0.5), (20.0, 10.0), (0.0, 10.0)])
def test_gradients_are_clipped_to_max_grad_norm_and_their_own_norm_is_recorded(
    max_grad_norm: float, length: float
) -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    state = TrainState(model, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0 - step / 4))
    before = model.weight.detach().clone()
    model.weight.grad = torch.tensor([[6.0, 8.0]])
    norm, learning_rate = loop._update(state, max_grad_norm, Accelerator(cpu=True))
    assert (float(norm), learning_rate, optimizer.param_groups[0]["lr"]) == (10.0, 1.0, 0.75)
    torch.testing.assert_close(before - model.weight.detach(), torch.tensor([[0.6, 0.8]]) * length)
    assert model.weight.grad is None


# ---------------------------------------------------------------------------------------------------------------------
# The loop


class Records(SimpleNamespace):
    """Keeps what a recorder gets for each step."""

    def __init__(self, steps: int) -> None:
        super().__init__(step=0, steps=steps, reported=[])

    def train_step(self, **step: Any) -> None:
        self.reported.append(step)


def trained(model: Any, steps: int, after_step: Callable[..., bool], **settings: Any) -> list[dict[str, Any]]:
    """What is recorded of each step of a run on `pairs` with batches of four."""
    training = Training(train_batch_size=4, **settings)
    split, accelerator, records = pairs(SINGLE_LABEL), Accelerator(cpu=True), Records(steps)
    optimizer = optim.optimizer(model, training)
    state = TrainState(model, optimizer, optim.schedule(optimizer, training, steps))
    form = Form(PADDED, PackedFormat(PAD, None, 1, longest=max(LENGTHS), with_lengths=True), Padding(PAD))
    context: Any = SimpleNamespace(config=Config(training=training), accelerator=accelerator)
    wanted = objective.objective(Task(SINGLE_LABEL, NAMES[SINGLE_LABEL]), training, split, CPU)
    loader = BatchLoader(split, form, accelerator)
    loop.train(context, state, loader, wanted, 1000, records, after_step)  # type: ignore[arg-type]
    return records.reported


@pytest.mark.parametrize("weights", [None, {"a": 5.0, "b": 1.0, "c": 0.25}], ids=["equal", "weighted"])
def test_the_recorded_loss_is_the_mean_of_the_global_batch_by_class_weight(
    tmp_path: Path, weights: dict[str, float] | None
) -> None:
    model, split = network(tmp_path), pairs(SINGLE_LABEL)
    assert split.labels is not None
    by_class = None if weights is None else torch.tensor(list(weights.values()))
    reported = trained(model, 3, lambda *_: False, class_weights=weights, learning_rate=1e-30)
    batches = list(planner.global_batches(len(split), 4, Training().seed, 3))
    assert [len(batch) for batch in batches] == [step["examples"] for step in reported] == [4, 4, 2]
    for batch, step in zip(batches, reported, strict=True):
        with torch.no_grad():
            inputs, labels = collate.padded(split, Padding(PAD), batch)
            assert labels is not None
            expected = F.cross_entropy(model.eval()(**inputs).logits, labels, by_class)
        assert float(step["loss"][0] / step["loss"][1]) == pytest.approx(expected.item(), rel=1e-5)
    assert [step["epoch"] for step in reported] == pytest.approx([1 / 3, 2 / 3, 1])


def test_every_step_is_in_training_mode_also_after_an_evaluation(tmp_path: Path) -> None:
    model, modes = network(tmp_path), []
    model.register_forward_pre_hook(lambda module, _: modes.append(module.training))
    reported = trained(model.eval(), 3, lambda *_: bool(model.eval()) and False)
    assert len(reported) == 3 and len(modes) >= 3 and all(modes)


def test_after_step_ends_the_training(tmp_path: Path) -> None:
    assert len(trained(network(tmp_path), 5, lambda epoch, loss: loss.step == 1)) == 2


def train(folder: Path, broken: Callable[[int], bool] = lambda step: False) -> list[tuple[int, bool]]:
    """Four steps; in the `broken` ones, counted from 1, a gradient is NaN. What is known after each: (step, finite)."""
    done: list[tuple[int, bool]] = []
    model = network(folder)

    def spoil(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * torch.nan if broken(len(done) + 1) else gradient

    def after_step(epoch: float, loss: StepLoss) -> bool:
        done.append((loss.step + 1, loss.finite()))
        return False

    model.classifier.weight.register_hook(spoil)
    with contextlib.suppress(NonFiniteLoss):
        trained(model, 4, after_step)
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
    monkeypatch.setattr(loop, "_keep_limit", lambda context, recorder, limit: None)
    assert len(train(tmp_path)) == 4
    assert again in ([500], [500, 500])
