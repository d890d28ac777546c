"""Dropout of our own drops what the library's drops: as much, independently, and in training only."""

import math

import pytest
import torch

from job.model import cpu_dropout


def kept(count: int, draws: cpu_dropout.Draws) -> torch.Tensor:
    keep = torch.empty(count, dtype=torch.uint8)
    for part in keep.split(cpu_dropout.CHUNK):
        draws.kept(part)
    return keep


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("count", [1, 3, 200_001])
def test_draws_keep_the_share_they_are_asked_for(probability: float, count: int) -> None:
    torch.manual_seed(3)
    draws = cpu_dropout.Draws(probability)
    keep = kept(count, draws)
    assert set(keep.unique().tolist()) <= {0, 1}
    assert draws.up == pytest.approx(1 / (1 - probability), rel=2e-4)
    spread = math.sqrt(probability * (1 - probability) / count)
    assert abs(keep.float().mean().item() - (1 - probability)) < 5 * spread + 1e-5


def test_every_element_is_drawn_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four elements share a random number, and chunks a buffer: neither may show."""
    monkeypatch.setattr(cpu_dropout, "CHUNK", 1000)
    torch.manual_seed(4)
    keep = kept(400_000, cpu_dropout.Draws(0.5)).double() - 0.5
    for distance in (1, 2, 3, 4, 1000):
        assert abs((keep[distance:] * keep[:-distance]).mean().item()) < 5 * 0.25 / math.sqrt(len(keep))


def test_the_same_seed_draws_the_same_and_the_next_draw_is_another() -> None:
    torch.manual_seed(5)
    first, second = (kept(512, cpu_dropout.Draws(0.5)) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(first, kept(512, cpu_dropout.Draws(0.5)))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_what_is_not_kept_is_dropped(dtype: torch.dtype) -> None:
    found = []
    for name in ("kept", "dropped"):
        torch.manual_seed(8)
        found.append(torch.empty(5, 7, dtype=dtype))
        getattr(cpu_dropout.Draws(0.3), name)(found[-1])
    assert torch.equal(found[0] + found[1], torch.ones(5, 7, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_is_scaled_and_its_gradient_alike(dtype: torch.dtype) -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.25))
    cpu_dropout.speed_up(model)
    assert type(model[0]) is cpu_dropout.Dropout
    x = torch.ones(1000, 7, dtype=dtype, requires_grad=True)
    y = model(x)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())
    assert y.dtype == dtype and sorted(set(y.detach().flatten().tolist())) == [0.0, pytest.approx(4 / 3, rel=1e-2)]


def test_evaluation_and_the_ends_of_the_scale_are_the_librarys() -> None:
    x = torch.ones(5)
    assert torch.equal(cpu_dropout.Dropout(0.0)(x), x)
    assert torch.equal(cpu_dropout.Dropout(1.0)(x), torch.zeros(5))
    assert torch.equal(cpu_dropout.Dropout(0.5).eval()(x), x)
