"""Dropout of our own drops what the library's drops: as much, independently, and in training only."""

import math

import pytest
import torch

from job.model import cpu_dropout


def kept(count: int, sampler: cpu_dropout.DropoutSampler) -> torch.Tensor:
    keep = torch.empty(count, dtype=torch.uint8)
    for part in keep.split(cpu_dropout.CHUNK):
        sampler.kept(part)
    return keep


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("count", [1, 3, 200_001])
def test_a_sampler_keeps_the_share_it_is_asked_for(probability: float, count: int) -> None:
    torch.manual_seed(3)
    sampler = cpu_dropout.DropoutSampler(probability)
    keep = kept(count, sampler)
    assert set(keep.unique().tolist()) <= {0, 1}
    assert sampler.scale == pytest.approx(1 / (1 - probability), rel=2e-4)
    spread = math.sqrt(probability * (1 - probability) / count)
    assert abs(keep.float().mean().item() - (1 - probability)) < 5 * spread + 1e-5


def test_every_element_is_drawn_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four elements share a random number, and chunks a buffer: neither may show."""
    monkeypatch.setattr(cpu_dropout, "CHUNK", 1000)
    torch.manual_seed(4)
    keep = kept(400_000, cpu_dropout.DropoutSampler(0.5)).double() - 0.5
    for distance in (1, 2, 3, 4, 1000):
        assert abs((keep[distance:] * keep[:-distance]).mean().item()) < 5 * 0.25 / math.sqrt(len(keep))


def test_the_same_seed_sampler_the_same_and_the_next_draw_is_another() -> None:
    torch.manual_seed(5)
    first, second = (kept(512, cpu_dropout.DropoutSampler(0.5)) for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(first, kept(512, cpu_dropout.DropoutSampler(0.5)))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_what_is_not_kept_is_dropped(dtype: torch.dtype) -> None:
    found = []
    for name in ("kept", "dropped"):
        torch.manual_seed(8)
        found.append(torch.empty(5, 7, dtype=dtype))
        getattr(cpu_dropout.DropoutSampler(0.3), name)(found[-1])
    assert torch.equal(found[0] + found[1], torch.ones(5, 7, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_is_kept_is_scaled_and_its_gradient_alike(dtype: torch.dtype) -> None:
    model = torch.nn.Sequential(torch.nn.Dropout(0.25))
    cpu_dropout.replace_dropout(model)
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


def test_it_computes_what_the_plain_form_does(monkeypatch: pytest.MonkeyPatch) -> None:
    x, masks = torch.randn(300, 7), []
    kept = cpu_dropout.DropoutSampler.kept

    def seen(self: cpu_dropout.DropoutSampler, out: torch.Tensor) -> None:
        kept(self, out)
        masks.append(out.clone())

    monkeypatch.setattr(cpu_dropout.DropoutSampler, "kept", seen)
    found = cpu_dropout.Dropout(0.25)(x)
    torch.testing.assert_close(found, cpu_dropout.drop_plainly(x, torch.cat(masks).view(x.shape), 0.25))


def test_only_plain_dropout_is_replaced_and_its_mode_is_kept() -> None:
    class Other(torch.nn.Dropout):
        """With a forward of its own."""

    inner = torch.nn.ModuleList([torch.nn.Dropout(0.2)])
    model = torch.nn.Sequential(inner, Other(0.3)).eval()
    cpu_dropout.replace_dropout(model)
    assert [type(m) for m in (inner[0], model[1])] == [cpu_dropout.Dropout, Other]
    assert inner[0].p == 0.2 and not inner[0].training
