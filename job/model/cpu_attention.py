"""Attention over the sequences of a packed micro-batch on a CPU, each within itself.

`attend_plainly` is the reference implementation; `attend` computes the same, faster. PyTorch's fused CPU kernel does
not support dropout, and in bf16 its backward pass is several times slower than the matrix products it consists of. It
is used in fp32 without dropout. Otherwise neighbouring sequences of similar length are computed together, in blocks of
scores that fit into a core's cache. The probabilities are saved for the backward pass, with a minus sign if they were
dropped: this needs memory quadratic in the length of a sequence, but avoids computing them twice.

    T  tokens of all sequences     L  tokens of one sequence     H  query heads     Hkv  key and value heads
    D  channels per head           N  sequences in a group times heads
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from job.model.attention_spec import AttentionSpec
from job.model.cpu_dropout import DropoutSampler

BLOCK = 2**19
"""Number of scores computed at a time: two fp32 matrices of this size fit into a core's cache."""

CALL_COST, MASK_COST = 12_000, 0.1
"""Overhead of a call, as a number of scores of one head; and cost of masking a score, relative to computing it. They
decide whether sequences of different lengths are computed together."""

BF16_MULTIPLE = 32
"""In bf16, lengths are rounded up to a multiple of this: oneDNN compiles a matrix product for each shape, which takes
milliseconds, and caches up to a thousand of them, half a megabyte each. Without rounding, a step takes 20 % longer."""

SIGNED = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Size of a floating-point type in bytes -> integer type of the same size."""


def attend_plainly(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], spec: AttentionSpec
) -> torch.Tensor:
    """Reference implementation of `attend`, one sequence at a time; tests compare the two."""
    key, value = _repeat_heads(query, key, value)
    attended = []
    queries = query.split([1] * len(lengths) if len(query) != len(key) else list(lengths))
    for q, k, v in zip(queries, key.split(list(lengths)), value.split(list(lengths)), strict=True):
        scores = torch.einsum("qhd,khd->hqk", q, k) * spec.scale
        hidden = _hidden(len(k), spec)
        if hidden is not None:
            scores = scores.masked_fill(hidden, -torch.inf)
        weights = F.dropout(scores.softmax(dim=-1), spec.dropout)
        attended.append(torch.einsum("hqk,khd->qhd", weights, v))
    return torch.cat(attended)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], spec: AttentionSpec
) -> torch.Tensor:
    """Attention within every sequence.

    Args:
        query: [T, H, D]; or [len(lengths), H, D] to compute the first token of each sequence only.
        key, value: [T, Hkv, D]; H is a multiple of Hkv.
        lengths: lengths of the sequences, in order; their sum is at most T.
        spec: parameters of the attention.

    Returns:
        Same shape as query; zeros for the tokens after the last sequence.

    Raises:
        NotImplementedError: queries for first tokens only, combined with a mask; or keys and values of different
        widths.
    """
    if len(query) != len(key) and (spec.causal or spec.window is not None):
        raise NotImplementedError("attention of first tokens only does not support a mask")
    if query.shape[-1] != value.shape[-1]:
        raise NotImplementedError("keys and values have different widths")
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast, a norm may have cast them to fp32
    key, value = _repeat_heads(query, key, value)
    fused = spec.dropout == 0.0 and query.element_size() >= 4
    multiple = BF16_MULTIPLE if query.element_size() == 2 else 1
    groups = plan_groups(tuple(lengths), len(query) != len(key), 0 if fused else CALL_COST, multiple)
    if fused:
        return _fused(query, key, value, groups, spec)
    attended: torch.Tensor = _Attention.apply(query, key, value, groups, spec)
    return attended


def _repeat_heads(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
    """Keys and values as [T, H, D]: each head is repeated for the query heads that share it."""
    shared = query.shape[1] // key.shape[1]
    if shared == 1:
        return key, value
    return key.repeat_interleave(shared, dim=1), value.repeat_interleave(shared, dim=1)


def _hidden(length: int, spec: AttentionSpec) -> torch.Tensor | None:
    """bool[L, L], True where a token (row) must not attend to another (column); None if all attend to all."""
    causal, window = spec.causal, spec.window
    if not causal and (window is None or window >= length - 1):
        return None
    distance = torch.arange(length)[:, None] - torch.arange(length)
    hidden = distance < 0 if causal else torch.zeros_like(distance, dtype=torch.bool)
    return hidden if window is None else hidden | (distance.abs() > window)


# ---------------------------------------------------------------------------------------------------------------------
# Groups of sequences


@dataclass(frozen=True)
class Group:
    """Neighbouring sequences that are computed together, padded to the length of the longest.

    Attributes:
        count: number of sequences.
        queries: the group's rows in the query tensor.
        keys: the group's rows in the key and value tensors.
        mask: bool[count, width], True where a sequence has a token; None without padding.
        places: int64[tokens], positions of the tokens in the flattened mask; None without padding.
    """

    count: int
    queries: slice
    keys: slice
    mask: torch.Tensor | None = None
    places: torch.Tensor | None = None


@lru_cache(maxsize=4)  # every layer of a model asks for the same groups
def plan_groups(
    lengths: tuple[int, ...], first_only: bool, call_cost: int, multiple: int
) -> tuple[Group, ...]:  # fmt: skip
    """Group neighbouring sequences of equal length, and of different lengths if padding costs less than another call.

    Lengths are rounded up to a multiple of `multiple`.
    """
    widths = [-(-length // multiple) * multiple for length in lengths]
    groups, begin, row = [], 0, 0
    while begin < len(lengths):
        longest, squares, end = 0, 0, begin
        for length in widths[begin:]:
            longest, squares = max(longest, length), squares + length**2
            scores = (end + 1 - begin) * longest**2
            if scores > squares and scores - squares + int(scores * MASK_COST) > call_cost:
                break
            end += 1
        together = lengths[begin:end]
        rows = slice(row, row + sum(together))
        groups.append(_group(together, max(widths[begin:end]), slice(begin, end) if first_only else rows, rows))
        begin, row = end, rows.stop
    return tuple(groups)


def _group(lengths: Sequence[int], width: int, queries: slice, keys: slice) -> Group:
    if set(lengths) == {width}:
        return Group(len(lengths), queries, keys)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]
    return Group(len(lengths), queries, keys, mask, mask.flatten().nonzero()[:, 0])


# ---------------------------------------------------------------------------------------------------------------------
# PyTorch's fused kernel, used in fp32 without dropout


def _fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: Sequence[Group], spec: AttentionSpec
) -> torch.Tensor:
    """Attention with PyTorch's kernel; all sequences of a group have the same length."""
    of_queries, of_keys = ([_size(rows) for rows in (getattr(g, name) for g in groups)] for name in ("queries", "keys"))
    unused = len(query) - sum(of_queries), len(key) - sum(of_keys)
    parts = query.split([*of_queries, unused[0]]), key.split([*of_keys, unused[1]]), value.split([*of_keys, unused[1]])
    attended = []
    for group, *qkv in zip(groups, *parts, strict=False):  # the unused rows have no group
        q, k, v = (x.unflatten(0, (group.count, -1)).transpose(1, 2) for x in qkv)
        hidden = None if spec.window is None else _hidden(k.shape[2], spec)
        mask = None if hidden is None else ~hidden
        output = F.scaled_dot_product_attention(q, k, v, mask, is_causal=spec.causal and mask is None, scale=spec.scale)
        attended.append(output.transpose(1, 2).flatten(0, 1))
    return torch.cat([*attended, query.new_zeros(unused[0], *query.shape[1:])])


# ---------------------------------------------------------------------------------------------------------------------
# Own implementation, used with dropout or in bf16


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, groups: Sequence[Group],
        spec: AttentionSpec,
    ) -> torch.Tensor:  # fmt: skip
        sampler = DropoutSampler(spec.dropout) if spec.dropout else None
        keep = any(ctx.needs_input_grad)
        output = _empty(query, len(query), groups[-1].queries.stop)
        ctx.groups, ctx.scale, ctx.sampler, ctx.tokens = groups, spec.scale, sampler, len(key)
        ctx.all_queries = all_queries = len(query) == len(key)
        kept = []
        for group in groups:
            q = _heads_first(query[group.queries], group, all_queries)
            k, v = (_heads_first(x[group.keys], group) for x in (key, value))
            biases = _padding_bias(group, q), _mask_bias(k, spec)
            attended, weights = _forward(q * spec.scale, k, v, biases, sampler, keep)
            _write(attended, output[group.queries], group, all_queries)
            kept += [q, k, v, weights]
        if keep:
            ctx.save_for_backward(output, *kept)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        output, *kept = ctx.saved_tensors
        last = ctx.groups[-1]
        d_query = _empty(output, len(output), last.queries.stop)
        d_key, d_value = (_empty(output, ctx.tokens, last.keys.stop) for _ in range(2))
        mean = (gradient * output).sum(dim=-1, keepdim=True)
        for group, q, k, v, weights in zip(ctx.groups, *(kept[i::4] for i in range(4)), strict=True):
            g, m = (_heads_first(x[group.queries], group, ctx.all_queries) for x in (gradient, mean))
            d_q, d_k, d_v = _backward(q * ctx.scale, k, v, weights, g, m, ctx.sampler)
            _write(d_q.mul_(ctx.scale), d_query[group.queries], group, ctx.all_queries)
            _write(d_k, d_key[group.keys], group)
            _write(d_v, d_value[group.keys], group)
        return d_query, d_key, d_value, None, None


def _empty(like: torch.Tensor, tokens: int, end: int) -> torch.Tensor:
    """Uninitialized [tokens, H, D], with zeros from row `end` on."""
    rows = like.new_empty(tokens, *like.shape[1:])
    rows[end:] = 0
    return rows


def _heads_first(x: torch.Tensor, group: Group, padded: bool = True) -> torch.Tensor:
    """[tokens, H, D] -> [N, L, D], zero-padded. With `padded` False there is one row per sequence, so L = 1."""
    if padded and group.mask is not None and group.places is not None:
        x = x.new_zeros(group.mask.numel(), *x.shape[1:]).index_copy_(0, group.places, x)
    return x.unflatten(0, (group.count, -1)).transpose(1, 2).flatten(0, 1)


def _write(x: torch.Tensor, rows: torch.Tensor, group: Group, padded: bool = True) -> None:
    """Write [N, L, D] without its padding into `rows`, [tokens, H, D]."""
    tokens = x.unflatten(0, (group.count, -1)).transpose(1, 2)
    if padded and group.places is not None:
        tokens = tokens.flatten(0, 1)[group.places]
    rows.view(tokens.shape).copy_(tokens)


def _padding_bias(group: Group, q: torch.Tensor) -> torch.Tensor | None:
    """Bias [N, 1, L] for the scores: minus infinity at padding; None without padding."""
    if group.mask is None:
        return None
    bias = torch.zeros(group.mask.shape, dtype=q.dtype).masked_fill_(~group.mask, -torch.inf)
    return bias.repeat_interleave(len(q) // group.count, dim=0)[:, None]


def _mask_bias(k: torch.Tensor, spec: AttentionSpec) -> torch.Tensor | None:
    """Bias [L, L] for the scores. It is finite, because a padding token may see padding only, which would give NaN."""
    hidden = _hidden(k.shape[1], spec)
    if hidden is None:
        return None
    return torch.zeros(hidden.shape, dtype=k.dtype).masked_fill_(hidden, torch.finfo(k.dtype).min)


def _forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, biases: tuple[torch.Tensor | None, torch.Tensor | None],
    sampler: DropoutSampler | None, keep: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:  # fmt: skip
    """(output [N, L, D]; probabilities [N, L, L], negative where dropped, or None unless `keep`)."""
    padding, mask = biases
    shape = (len(q), q.shape[1], k.shape[1])
    scores = q.new_empty(_step(shape), *shape[1:])
    weights = q.new_empty(shape) if keep else torch.empty_like(scores)
    signs = torch.empty_like(scores, dtype=SIGNED[q.element_size()])
    attended = torch.empty_like(q)
    value = v * sampler.scale if sampler else v
    for part in _blocks(shape):
        s, sign = (x[: part.stop - part.start] for x in (scores, signs))
        w = weights[part] if keep else weights[: len(s)]
        torch.bmm(q[part], k[part].mT, out=s)
        if mask is not None:
            s.add_(mask)
        if padding is not None:
            s.add_(padding[part])
        torch.softmax(s, dim=-1, out=w)
        if sampler:
            sampler.dropped(sign)
            w.view(sign.dtype).bitwise_or_(sign.bitwise_left_shift_(8 * sign.element_size() - 1))
            torch.clamp_min(w, 0, out=s)
        torch.bmm(s if sampler else w, value[part], out=attended[part])
    return attended, weights if keep else None


def _backward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, weights: torch.Tensor, g: torch.Tensor, mean: torch.Tensor,
    sampler: DropoutSampler | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Gradients of q, k and v, given the gradient of the output and `mean`, [N, L, 1], that of the score gradients."""
    d_q, d_k, d_v = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    scores, scratch = (q.new_empty(_step(weights.shape), *weights.shape[1:]) for _ in range(2))
    if sampler:
        g = g * sampler.scale
    for part in _blocks(weights.shape):
        s, w = (x[: part.stop - part.start] for x in (scores, scratch))
        w = torch.clamp_min(weights[part], 0, out=w) if sampler else weights[part]
        torch.bmm(w.mT, g[part], out=d_v[part])
        torch.bmm(g[part], v[part].mT, out=s)
        if sampler:
            s.mul_(w).addcmul_(torch.abs(weights[part], out=w), mean[part], value=-1)
        else:
            s.sub_(mean[part]).mul_(w)
        torch.bmm(s, k[part], out=d_q[part])
        torch.bmm(s.mT, q[part], out=d_k[part])
    return d_q, d_k, d_v


def _size(part: slice) -> int:
    return part.stop - part.start


def _step(shape: Sequence[int]) -> int:
    """Number of score matrices in a block."""
    return min(shape[0], max(1, BLOCK // (shape[1] * shape[2])))


def _blocks(shape: Sequence[int]) -> Iterator[slice]:
    step = _step(shape)
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))
