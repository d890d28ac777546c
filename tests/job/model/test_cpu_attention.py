"""Attention over sequences laid end to end is plain attention of each sequence, and its dropout is dropout."""

import math
from itertools import accumulate, pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from job.model import cpu_attention
from job.model.attention_spec import AttentionSpec

LENGTHS = [[7], [1], [5, 5, 5], [9, 4, 4, 1, 1], [1, 9, 4, 9]]
HEADS, CHANNELS = 3, 8


Inputs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def inputs(
    lengths: list[int], queries: int | None = None, heads: int = HEADS, channels: int = CHANNELS, keys: int = 0
) -> Inputs:
    """Queries, keys and values; `keys`: heads of these, where there are fewer."""
    generator = torch.Generator().manual_seed(0)
    first, rest = sum(lengths) if queries is None else queries, sum(lengths)

    def drawn(rows: int, heads: int) -> torch.Tensor:
        return torch.randn(rows, heads, channels, dtype=torch.float64, generator=generator, requires_grad=True)

    return drawn(first, heads), drawn(rest, keys or heads), drawn(rest, keys or heads)


MASKS: list[dict[str, Any]] = [
    {},
    {"causal": True},
    {"window": 0},
    {"window": 3},
    {"causal": True, "window": 2},
    {"causal": True, "window": 50},
]


def gradients(output: torch.Tensor, of: Inputs) -> tuple[torch.Tensor, ...]:
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
    return torch.autograd.grad(output, of, weights)


FUSED, ALONE, SOME_TOGETHER, TOGETHER = None, 0, 30, 12_000
"""PyTorch's kernel; ours, where calls cost so little or so much that sequences are computed alone or together."""


@pytest.mark.parametrize("call_cost", [FUSED, ALONE, SOME_TOGETHER, TOGETHER])
@pytest.mark.parametrize("masked", [None, *MASKS], ids=str)
def test_it_computes_what_the_plain_form_does(
    masked: dict[str, Any] | None, call_cost: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`masked` None: for first tokens alone."""
    monkeypatch.setattr(cpu_attention, "CALL_COST", call_cost)
    dropout = 0.0 if call_cost is FUSED else 1e-9  # rounded to none, by our own kernel
    for lengths in LENGTHS:
        qkv = inputs(lengths, len(lengths) if masked is None else None)
        found = cpu_attention.attend(*qkv, lengths, AttentionSpec(dropout, 0.3, **(masked or {})))
        expected = cpu_attention.attend_plainly(*qkv, lengths, AttentionSpec(0.0, 0.3, **(masked or {})))
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(gradients(found, qkv), gradients(expected, qkv))


@pytest.mark.parametrize("dropout", [0.0, 1e-9])
@pytest.mark.parametrize("masked", [{}, {"causal": True, "window": 2}], ids=str)
def test_query_heads_share_heads_of_keys_and_values(masked: dict[str, Any], dropout: float) -> None:
    lengths = [9, 4, 4, 1]
    qkv = inputs(lengths, heads=6, keys=2)
    found = cpu_attention.attend(*qkv, lengths, AttentionSpec(dropout, 0.3, **masked))
    expected = cpu_attention.attend_plainly(*qkv, lengths, AttentionSpec(0.0, 0.3, **masked))
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients(found, qkv), gradients(expected, qkv))


def test_the_plain_form_is_attention_of_each_sequence() -> None:
    """By PyTorch's own function, whose masks are given as such."""
    lengths = [5, 3]
    qkv = inputs(lengths)
    for masked in MASKS:
        expected = []
        for q, k, v in zip(*(x.split(lengths) for x in qkv), strict=True):
            i, j = torch.meshgrid(*[torch.arange(len(q))] * 2, indexing="ij")
            seen = (i - j).abs() <= masked.get("window", len(q))
            seen = seen & (j <= i) if masked.get("causal") else seen
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
            expected.append(F.scaled_dot_product_attention(q, k, v, seen, scale=0.3).transpose(0, 1))
        torch.testing.assert_close(
            cpu_attention.attend_plainly(*qkv, lengths, AttentionSpec(0.0, 0.3, **masked)), torch.cat(expected)
        )


@pytest.mark.parametrize("masked", [{"causal": True}, {"window": 3}], ids=str)
def test_first_tokens_alone_take_no_mask(masked: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError, match="does not support a mask"):
        cpu_attention.attend(*inputs([5, 3], 2), [5, 3], AttentionSpec(0.0, 0.3, **masked))


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("masked", [None, *MASKS[:2]], ids=str)
def test_tokens_behind_the_last_sequence_take_no_part(masked: dict[str, Any] | None, fused: bool) -> None:
    lengths, behind = [9, 4, 4], 5
    q, k, v = (x.detach() for x in inputs([*lengths, behind], len(lengths) if masked is None else None))
    filled = [x.clone().requires_grad_() for x in (q, k, v)]
    alone = [x[: sum(lengths)].clone().requires_grad_() for x in (q, k, v)]
    spec = AttentionSpec(0.0 if fused else 1e-9, 0.3, **(masked or {}))
    found, expected = (cpu_attention.attend(q, k, v, lengths, spec) for q, k, v in (filled, alone))
    assert found.shape == q.shape
    torch.testing.assert_close(found[: len(expected)], expected)
    assert not found[len(expected) :].any()
    found.square().sum().backward()
    expected.square().sum().backward()
    for x, y in zip(filled, alone, strict=True):
        assert x.grad is not None
        torch.testing.assert_close(x.grad[: len(y)], y.grad)
        assert not x.grad[len(y) :].any()


@given(st.lists(st.integers(1, 60), min_size=1), st.integers(0, 10_000), st.sampled_from([1, 8]))
def test_groups_are_all_sequences_in_their_order_with_little_padding(
    lengths: list[int], call_cost: int, multiple: int
) -> None:
    groups = cpu_attention.plan_groups(tuple(lengths), False, call_cost, multiple)
    ends = [0, *accumulate(group.count for group in groups)]
    parts = [lengths[a:b] for a, b in pairwise(ends)]
    assert [length for part in parts for length in part] == lengths
    assert [group.keys for group in groups] == [slice(sum(lengths[:a]), sum(lengths[:b])) for a, b in pairwise(ends)]
    for group, part in zip(groups, parts, strict=True):
        widths = [math.ceil(length / multiple) * multiple for length in part]
        assert (group.mask is None) == (set(part) == {max(widths)})
        if group.mask is not None:
            assert group.mask.sum(dim=1).tolist() == part
            assert group.mask.shape[1] == max(widths)
            assert len(part) * max(widths) ** 2 - sum(width**2 for width in widths) <= call_cost


@pytest.mark.parametrize(
    ("masked", "block", "call_cost"),
    [
        (None, 20, TOGETHER),
        ({}, 1, TOGETHER),
        ({"causal": True}, 20, TOGETHER),
        ({"causal": True}, 20, ALONE),
        ({"window": 1}, 2**19, TOGETHER),
    ],
    ids=str,
)
def test_gradients_with_dropout_are_those_of_the_output(
    masked: dict[str, Any] | None, block: int, call_cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention, "BLOCK", block)
    monkeypatch.setattr(cpu_attention, "CALL_COST", call_cost)
    lengths = [3, 2, 2, 1]

    def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(1)
        return cpu_attention.attend(query, key, value, lengths, AttentionSpec(0.4, 0.3, **(masked or {})))

    assert torch.autograd.gradcheck(attend, inputs(lengths, len(lengths) if masked is None else None, 2, 2))


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    lengths = [6, 6, 3]
    q, k, v = (x.detach() for x in inputs(lengths))
    expected = cpu_attention.attend(q, k, v, lengths, AttentionSpec(0.0, 0.3))
    torch.manual_seed(2)
    draws = torch.stack([cpu_attention.attend(q, k, v, lengths, AttentionSpec(0.3, 0.3)) for _ in range(400)])
    standard_error = draws.std(dim=0) / math.sqrt(len(draws))
    assert ((draws.mean(dim=0) - expected).abs() < 5 * standard_error).all()
    assert draws.std(dim=0).min() > 0.01


def test_half_precision_stays_half_and_close() -> None:
    even = [cpu_attention.BF16_MULTIPLE * n for n in (2, 1, 1)]  # for which the same numbers are drawn
    for dropout, lengths in ((0.0, [9, 4, 4, 1]), (0.0, even), (0.2, even)):
        q, k, v = (x.detach() for x in inputs(lengths))
        found = []
        for dtype in (torch.float64, torch.bfloat16):
            torch.manual_seed(6)
            found.append(
                cpu_attention.attend(q.to(dtype), k.to(dtype), v.to(dtype), lengths, AttentionSpec(dropout, 0.3))
            )
        assert found[1].dtype == torch.bfloat16
        torch.testing.assert_close(found[1].double(), found[0], rtol=0.05, atol=0.05)
