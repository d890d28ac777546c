"""Dropout of our own drops what the library's drops: as much, independently, and in training only."""

import math

import pytest
import torch

from job import dropout


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("count", [1, 3, 200_001])
def test_a_mask_keeps_the_share_it_is_asked_for(probability: float, count: int) -> None:
    torch.manual_seed(3)
    keep, up = dropout.mask((count,), probability)
    assert keep.shape == (count,) and set(keep.unique().tolist()) <= {0, 1}
    assert up == pytest.approx(1 / (1 - probability), rel=2e-4)
    spread = math.sqrt(probability * (1 - probability) / count)
    assert abs(keep.float().mean().item() - (1 - probability)) < 5 * spread + 1e-5


def test_every_element_of_a_mask_is_drawn_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four elements share a random number, and chunks a buffer: neither may show."""
    monkeypatch.setattr(dropout, "CHUNK", 1000)
    torch.manual_seed(4)
    keep = dropout.mask((400_000,), 0.5)[0].double() - 0.5
    for distance in (1, 2, 3, 4, 1000):
        assert abs((keep[distance:] * keep[:-distance]).mean().item()) < 5 * 0.25 / math.sqrt(len(keep))


def test_the_same_seed_draws_the_same_mask_and_the_next_another() -> None:
    torch.manual_seed(5)
    first, second = (dropout.mask((64, 8), 0.5)[0] for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(first, dropout.mask((64, 8), 0.5)[0])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_is_scaled_and_its_gradient_alike(dtype: torch.dtype) -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.25))
    dropout.speed_up(model)
    assert type(model[0]) is dropout.Dropout
    x = torch.ones(1000, 7, dtype=dtype, requires_grad=True)
    y = model(x)
    y.sum().backward()
    assert x.grad is not None and torch.equal(x.grad, y.detach())
    assert y.dtype == dtype and sorted(set(y.detach().flatten().tolist())) == [0.0, pytest.approx(4 / 3, rel=1e-2)]


def test_evaluation_and_the_ends_of_the_scale_are_the_librarys() -> None:
    x = torch.ones(5)
    assert torch.equal(dropout.Dropout(0.0)(x), x)
    assert torch.equal(dropout.Dropout(1.0)(x), torch.zeros(5))
    assert torch.equal(dropout.Dropout(0.5).eval()(x), x)
