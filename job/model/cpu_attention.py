"""Attention over sequences laid end to end, each within itself: what the libraries have no good CPU kernel for.

Sequences of about one length are computed together, in blocks of scores that stay in a core's cache. PyTorch's fused
CPU kernel takes no dropout, and in bf16 its backward pass costs several times the products it is made of. Here the
probabilities are kept for the backward pass, with the sign bit for what dropout drops: that memory, an element for each
pair of tokens of a sequence, is paid for not computing them twice.

    T  tokens of all sequences     L  tokens of one     H  heads     D  channels of a head     N  sequences x heads
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from job.model.cpu_dropout import Draws

BLOCK = 2**19
"""Scores computed at a time: two such matrices in fp32 fit into a core's cache."""

IN_VAIN, MASKING = 12_000, 10
"""How many scores of a head cost as much as a call, and how many times more than their masking: what decides whether
sequences of different lengths are computed together."""

MULTIPLE = 32
"""Of which numbers of tokens should be in bf16 on a CPU: oneDNN compiles its matrix products for each shape, in
milliseconds, and keeps up to a thousand of them, half a megabyte each. Many shapes are a fifth of a step's time."""

BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Bytes of a floating-point number -> the integers of its size."""


@dataclass(frozen=True)
class Run:
    """Neighbouring sequences that are computed together.

    Attributes:
        count: how many.
        asked: their rows of the queries.
        rows: their rows of the keys and values.
        real: bool[count, width], where a sequence has a token; None where it has one everywhere.
        places: int64[tokens], the numbers of these places; None likewise.
    """

    count: int
    asked: slice
    rows: slice
    real: torch.Tensor | None = None
    places: torch.Tensor | None = None


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], dropout: float, scale: float
) -> torch.Tensor:
    """softmax(Q K' scale) V of every sequence, with dropout of the probabilities.

    Args:
        query: [T, H, D] or, for the first token of each sequence alone, [len(lengths), H, D].
        key, value: [T, H, D].
        lengths: of the sequences, in their order; they sum to T or less.
        dropout: probability, 0.0 in evaluation.
        scale: of the scores.

    Returns:
        Like query; zeros for the tokens behind the last sequence.
    """
    fused = dropout == 0.0 and query.element_size() >= 4
    multiple = MULTIPLE if query.element_size() == 2 else 1
    runs = plan_runs(tuple(lengths), len(query) != len(key), 0 if fused else IN_VAIN, multiple)
    if fused:
        return _fused(query, key, value, runs, scale)
    attended: torch.Tensor = _Attention.apply(query, key, value, runs, dropout, scale)
    return attended


@lru_cache(maxsize=4)  # the layers of a model ask in turn
def plan_runs(lengths: tuple[int, ...], first_only: bool, in_vain: int, multiple: int) -> tuple[Run, ...]:
    """Neighbours of one length together, those of several while no more than `in_vain` scores are for nothing.

    Each length counts as the next multiple of `multiple`.
    """
    widths = [-(-length // multiple) * multiple for length in lengths]
    runs, begin, row = [], 0, 0
    while begin < len(lengths):
        longest, squares, end = 0, 0, begin
        for length in widths[begin:]:
            longest, squares = max(longest, length), squares + length**2
            scores = (end + 1 - begin) * longest**2
            if scores > squares and scores - squares + scores // MASKING > in_vain:
                break
            end += 1
        together = lengths[begin:end]
        rows = slice(row, row + sum(together))
        runs.append(_run(together, max(widths[begin:end]), slice(begin, end) if first_only else rows, rows))
        begin, row = end, rows.stop
    return tuple(runs)


def _run(lengths: Sequence[int], width: int, asked: slice, rows: slice) -> Run:
    if set(lengths) == {width}:
        return Run(len(lengths), asked, rows)
    real = torch.arange(width) < torch.tensor(lengths)[:, None]
    return Run(len(lengths), asked, rows, real, real.flatten().nonzero()[:, 0])


def _fused(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, runs: Sequence[Run], scale: float
) -> torch.Tensor:
    """PyTorch's kernel, the faster one without dropout in fp32, for runs of one length each."""
    asked, rows = (
        [_size(part) for part in parts] for parts in zip(*((run.asked, run.rows) for run in runs), strict=True)
    )
    behind = len(query) - sum(asked), len(key) - sum(rows)
    parts = query.split([*asked, behind[0]]), key.split([*rows, behind[1]]), value.split([*rows, behind[1]])
    attended = []
    for run, *qkv in zip(runs, *parts, strict=False):  # what is behind has no run
        q, k, v = (x.unflatten(0, (run.count, -1)).transpose(1, 2) for x in qkv)
        attended.append(F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(0, 1))
    return torch.cat([*attended, query.new_zeros(behind[0], *query.shape[1:])])


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        runs: Sequence[Run],
        dropout: float,
        scale: float,
    ) -> torch.Tensor:
        draws = Draws(dropout) if dropout else None
        keep = any(ctx.needs_input_grad)
        output = _empty(query, len(query), runs[-1].asked.stop)
        ctx.runs, ctx.scale, ctx.draws, ctx.tokens = runs, scale, draws, len(key)
        ctx.whole = whole = len(query) == len(key)
        kept = []
        for run in runs:
            q = _heads_first(query[run.asked], run, whole)
            k, v = (_heads_first(x[run.rows], run) for x in (key, value))
            attended, weights = _forward(q * scale, k, v, _hidden(run, q), draws, keep)
            _put(attended, output[run.asked], run, whole)
            kept += [q, k, v, weights]
        if keep:
            ctx.save_for_backward(output, *kept)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        output, *kept = ctx.saved_tensors
        last = ctx.runs[-1]
        d_query = _empty(output, len(output), last.asked.stop)
        d_key, d_value = (_empty(output, ctx.tokens, last.rows.stop) for _ in range(2))
        mean = (gradient * output).sum(dim=-1, keepdim=True)
        for run, q, k, v, weights in zip(ctx.runs, *(kept[i::4] for i in range(4)), strict=True):
            g, m = (_heads_first(x[run.asked], run, ctx.whole) for x in (gradient, mean))
            d_q, d_k, d_v = _backward(q * ctx.scale, k, v, weights, g, m, ctx.draws)
            _put(d_q.mul_(ctx.scale), d_query[run.asked], run, ctx.whole)
            _put(d_k, d_key[run.rows], run)
            _put(d_v, d_value[run.rows], run)
        return d_query, d_key, d_value, None, None, None


def _empty(like: torch.Tensor, tokens: int, end: int) -> torch.Tensor:
    """[tokens, H, D] to be written up to `end`, with zeros behind."""
    rows = like.new_empty(tokens, *like.shape[1:])
    rows[end:] = 0
    return rows


def _heads_first(x: torch.Tensor, run: Run, whole: bool = True) -> torch.Tensor:
    """[tokens, H, D] -> [N, L, D], zeros behind the shorter sequences; with one row a sequence, L = 1."""
    if whole and run.real is not None and run.places is not None:
        x = x.new_zeros(run.real.numel(), *x.shape[1:]).index_copy_(0, run.places, x)
    return x.unflatten(0, (run.count, -1)).transpose(1, 2).flatten(0, 1)


def _put(x: torch.Tensor, rows: torch.Tensor, run: Run, whole: bool = True) -> None:
    """[N, L, D] -> rows: [tokens, H, D]."""
    tokens = x.unflatten(0, (run.count, -1)).transpose(1, 2)
    if whole and run.places is not None:
        tokens = tokens.flatten(0, 1)[run.places]
    rows.view(tokens.shape).copy_(tokens)


def _hidden(run: Run, q: torch.Tensor) -> torch.Tensor | None:
    """[N, 1, L], to be added to scores: minus infinity behind the shorter sequences; None where there are none."""
    if run.real is None:
        return None
    bias = torch.zeros(run.real.shape, dtype=q.dtype).masked_fill_(~run.real, -torch.inf)
    return bias.repeat_interleave(len(q) // run.count, dim=0)[:, None]


def _forward(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, hidden: torch.Tensor | None, draws: Draws | None, keep: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """([N, L, D] attended; the probabilities [N, L, L], those dropped with a minus, if they are to be kept)."""
    shape = (len(q), q.shape[1], k.shape[1])
    scores = q.new_empty(_step(shape), *shape[1:])
    weights = q.new_empty(shape) if keep else torch.empty_like(scores)
    signs = torch.empty_like(scores, dtype=BITS[q.element_size()])
    attended = torch.empty_like(q)
    value = v * draws.up if draws else v
    for part in _blocks(shape):
        s, sign = (x[: part.stop - part.start] for x in (scores, signs))
        w = weights[part] if keep else weights[: len(s)]
        torch.bmm(q[part], k[part].mT, out=s)
        if hidden is not None:
            s.add_(hidden[part])
        torch.softmax(s, dim=-1, out=w)
        if draws:
            draws.dropped(sign)
            w.view(sign.dtype).bitwise_or_(sign.bitwise_left_shift_(8 * sign.element_size() - 1))
            torch.clamp_min(w, 0, out=s)
        torch.bmm(s if draws else w, value[part], out=attended[part])
    return attended, weights if keep else None


def _backward(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    weights: torch.Tensor,
    g: torch.Tensor,
    mean: torch.Tensor,
    draws: Draws | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of q, k and v from that of the output; `mean`: [N, L, 1], of the gradients of the scores."""
    d_q, d_k, d_v = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
    scores, scratch = (q.new_empty(_step(weights.shape), *weights.shape[1:]) for _ in range(2))
    if draws:
        g = g * draws.up
    for part in _blocks(weights.shape):
        s, w = (x[: part.stop - part.start] for x in (scores, scratch))
        w = torch.clamp_min(weights[part], 0, out=w) if draws else weights[part]
        torch.bmm(w.mT, g[part], out=d_v[part])
        torch.bmm(g[part], v[part].mT, out=s)
        if draws:
            s.mul_(w).addcmul_(torch.abs(weights[part], out=w), mean[part], value=-1)
        else:
            s.sub_(mean[part]).mul_(w)
        torch.bmm(s, k[part], out=d_q[part])
        torch.bmm(s.mT, q[part], out=d_k[part])
    return d_q, d_k, d_v


def _size(part: slice) -> int:
    return part.stop - part.start


def _step(shape: Sequence[int]) -> int:
    """Matrices of scores in a block."""
    return min(shape[0], max(1, BLOCK // (shape[1] * shape[2])))


def _blocks(shape: Sequence[int]) -> Iterator[slice]:
    step = _step(shape)
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))
