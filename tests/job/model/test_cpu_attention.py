"""Attention over sequences laid end to end is plain attention of each sequence, and its dropout is dropout."""

import math
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from job.model import cpu_attention

LENGTHS = [[7], [1], [5, 5, 5], [9, 4, 4, 1, 1], [1, 9, 4, 9]]
HEADS, CHANNELS = 3, 8


def inputs(
    lengths: list[int], queries: int | None = None, heads: int = HEADS, channels: int = CHANNELS
) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = [sum(lengths) if queries is None else queries, sum(lengths), sum(lengths)]
    return [torch.randn(n, heads, channels, dtype=torch.float64, generator=generator, requires_grad=True) for n in rows]


def plain(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float) -> torch.Tensor:
    """[L, H, D] each, one sequence."""
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


@pytest.mark.parametrize("in_vain", [0, 30, 12_000])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("first_only", [False, True])
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_each_sequence_attends_to_itself_alone(
    lengths: list[int], first_only: bool, fused: bool, in_vain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention, "IN_VAIN", in_vain)
    q, k, v = inputs(lengths, len(lengths) if first_only else None)
    dropout = 0.0 if fused else 1e-9  # rounded to none, by our own kernel
    found = cpu_attention.attend(q, k, v, lengths, dropout, 0.3)
    asked = [1] * len(lengths) if first_only else lengths
    parts = zip(q.split(asked), k.split(lengths), v.split(lengths), strict=True)
    expected = torch.cat([plain(*part, 0.3) for part in parts])
    torch.testing.assert_close(found, expected)
    weights = torch.linspace(-1, 1, expected.numel(), dtype=torch.float64).view(expected.shape)
    gradients = [torch.autograd.grad(x, (q, k, v), weights) for x in (found, expected)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("first_only", [False, True])
def test_tokens_behind_the_last_sequence_take_no_part(first_only: bool, fused: bool) -> None:
    lengths, behind = [9, 4, 4], 5
    q, k, v = (x.detach() for x in inputs([*lengths, behind], len(lengths) if first_only else None))
    filled = [x.clone().requires_grad_() for x in (q, k, v)]
    alone = [x[: sum(lengths)].clone().requires_grad_() for x in (q, k, v)]
    dropout = 0.0 if fused else 1e-9
    found, expected = (cpu_attention.attend(*qkv, lengths, dropout, 0.3) for qkv in (filled, alone))
    assert found.shape == q.shape
    torch.testing.assert_close(found[: len(expected)], expected)
    assert not found[len(expected) :].any()
    found.square().sum().backward()
    expected.square().sum().backward()
    for x, y in zip(filled, alone, strict=True):
        torch.testing.assert_close(x.grad[: len(y)], y.grad)
        assert not x.grad[len(y) :].any()


@given(st.lists(st.integers(1, 60), min_size=1), st.integers(0, 10_000), st.sampled_from([1, 8]))
def test_runs_are_all_sequences_in_their_order_with_little_computed_in_vain(
    lengths: list[int], in_vain: int, multiple: int
) -> None:
    runs = cpu_attention.plan_runs(tuple(lengths), False, in_vain, multiple)
    ends = [0, *accumulate(run.count for run in runs)]
    parts = [lengths[a:b] for a, b in pairwise(ends)]
    assert [length for part in parts for length in part] == lengths
    assert [run.rows for run in runs] == [slice(sum(lengths[:a]), sum(lengths[:b])) for a, b in pairwise(ends)]
    for run, part in zip(runs, parts, strict=True):
        widths = [math.ceil(length / multiple) * multiple for length in part]
        assert (run.real is None) == (set(part) == {max(widths)})
        if run.real is not None:
            assert run.real.sum(dim=1).tolist() == part
            assert run.real.shape[1] == max(widths)
            assert len(part) * max(widths) ** 2 - sum(width**2 for width in widths) <= in_vain


@pytest.mark.parametrize("in_vain", [0, 12_000])
@pytest.mark.parametrize("block", [1, 20, 2**19])
@pytest.mark.parametrize("first_only", [False, True])
def test_gradients_with_dropout_are_those_of_the_output(
    first_only: bool, block: int, in_vain: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention, "BLOCK", block)
    monkeypatch.setattr(cpu_attention, "IN_VAIN", in_vain)
    lengths = [3, 2, 2, 1]

    def attend(*qkv: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return cpu_attention.attend(*qkv, lengths, 0.4, 0.3)

    assert torch.autograd.gradcheck(attend, inputs(lengths, len(lengths) if first_only else None, 2, 2))


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    lengths = [6, 6, 3]
    q, k, v = (x.detach() for x in inputs(lengths))
    expected = cpu_attention.attend(q, k, v, lengths, 0.0, 0.3)
    torch.manual_seed(2)
    draws = torch.stack([cpu_attention.attend(q, k, v, lengths, 0.3, 0.3) for _ in range(1000)])
    standard_error = draws.std(dim=0) / math.sqrt(len(draws))
    assert ((draws.mean(dim=0) - expected).abs() < 5 * standard_error).all()
    assert draws.std(dim=0).min() > 0.01


def test_half_precision_stays_half_and_close() -> None:
    even = [cpu_attention.MULTIPLE * n for n in (2, 1, 1)]  # for which the same numbers are drawn
    for dropout, lengths in ((0.0, [9, 4, 4, 1]), (0.0, even), (0.2, even)):
        q, k, v = (x.detach() for x in inputs(lengths))
        found = []
        for dtype in (torch.float64, torch.bfloat16):
            torch.manual_seed(6)
            found.append(cpu_attention.attend(q.to(dtype), k.to(dtype), v.to(dtype), lengths, dropout, 0.3))
        assert found[1].dtype == torch.bfloat16
        torch.testing.assert_close(found[1].double(), found[0], rtol=0.05, atol=0.05)
