"""Attention over sequences laid end to end is plain attention of each sequence, and its dropout is dropout."""

import math

import pytest
import torch

from job import attention

LENGTHS = [[7], [1], [5, 5, 5], [9, 4, 4, 1, 1], [1, 9, 4, 9]]
HEADS, CHANNELS = 3, 8


def inputs(lengths: list[int], queries: int | None = None) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = [sum(lengths) if queries is None else queries, sum(lengths), sum(lengths)]
    return [torch.randn(n, HEADS, CHANNELS, dtype=torch.float64, generator=generator, requires_grad=True) for n in rows]


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """[L, H, D] each, one sequence."""
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_each_sequence_attends_to_itself_alone(lengths: list[int], first_only: bool) -> None:
    q, k, v = inputs(lengths, len(lengths) if first_only else None)
    found = attention.attend(q, k, v, lengths, 0.0, 0.3)
    asked = [1] * len(lengths) if first_only else lengths
    parts = zip(q.split(asked), k.split(lengths), v.split(lengths), strict=True)
    torch.testing.assert_close(found, torch.cat([plain(*part, 0.3) for part in parts]))


@pytest.mark.parametrize("block", [1, 200, 2**19])
@pytest.mark.parametrize("first_only", [False, True])
def test_gradients_with_dropout_are_those_of_the_output(
    first_only: bool, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "BLOCK", block)
    lengths = [9, 4, 4, 1]

    def attend(*qkv: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return attention.attend(*qkv, lengths, 0.4, 0.3)

    assert torch.autograd.gradcheck(attend, inputs(lengths, len(lengths) if first_only else None))


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    lengths = [6, 6, 3]
    q, k, v = (x.detach() for x in inputs(lengths))
    expected = attention.attend(q, k, v, lengths, 0.0, 0.3)
    torch.manual_seed(2)
    draws = torch.stack([attention.attend(q, k, v, lengths, 0.3, 0.3) for _ in range(3000)])
    standard_error = draws.std(dim=0) / math.sqrt(len(draws))
    assert ((draws.mean(dim=0) - expected).abs() < 5 * standard_error).all()
    assert draws.std(dim=0).min() > 0.01


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("count", [1, 3, 200_001])
def test_a_mask_keeps_the_share_it_is_asked_for(probability: float, count: int) -> None:
    torch.manual_seed(3)
    keep, up = attention.dropout_mask((count,), probability)
    assert keep.shape == (count,) and set(keep.unique().tolist()) <= {0, 1}
    assert up == pytest.approx(1 / (1 - probability), rel=2e-4)
    spread = math.sqrt(probability * (1 - probability) / count)
    assert abs(keep.float().mean().item() - (1 - probability)) < 5 * spread + 1e-5


def test_every_element_of_a_mask_is_drawn_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four elements share a random number, and blocks a buffer: neither may show."""
    monkeypatch.setattr(attention, "BLOCK", 1000)
    torch.manual_seed(4)
    keep = attention.dropout_mask((400_000,), 0.5)[0].double() - 0.5
    for distance in (1, 2, 3, 4, 1000):
        assert abs((keep[distance:] * keep[:-distance]).mean().item()) < 5 * 0.25 / math.sqrt(len(keep))


def test_the_same_seed_draws_the_same_mask_and_the_next_another() -> None:
    torch.manual_seed(5)
    first, second = (attention.dropout_mask((64, 8), 0.5)[0] for _ in range(2))
    torch.manual_seed(5)
    assert torch.equal(first, attention.dropout_mask((64, 8), 0.5)[0])
    assert not torch.equal(first, second)


def test_half_precision_stays_half_and_close() -> None:
    lengths = [9, 4, 4, 1]
    q, k, v = (x.detach() for x in inputs(lengths))
    for dropout in (0.0, 0.2):
        found = []
        for dtype in (torch.float64, torch.bfloat16):
            torch.manual_seed(6)
            found.append(attention.attend(q.to(dtype), k.to(dtype), v.to(dtype), lengths, dropout, 0.3))
        assert found[1].dtype == torch.bfloat16
        torch.testing.assert_close(found[1].double(), found[0], rtol=0.05, atol=0.05)
