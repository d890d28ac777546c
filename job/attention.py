"""Attention over sequences laid end to end, each within itself: what the libraries have no CPU kernel for.

Sequences of equal length are computed together, as one batch without a padded token. Without dropout that is a call of
the fused kernel; with dropout PyTorch's fused CPU kernel does not run and what it falls back on keeps three matrices
[L, L] a head, so here is one that computes the scores again in the backward pass, in blocks that stay in the cache.

    T  tokens of all sequences     L  tokens of one     H  heads     D  channels of a head
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

from job.dropout import mask

BLOCK = 2**19
"""Scores computed at a time: two such matrices in fp32 fit into a core's cache."""


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: Sequence[int], dropout: float, scale: float
) -> torch.Tensor:
    """softmax(Q K' scale) V of every sequence, with dropout of the probabilities.

    Args:
        query: [T, H, D] or, for the first token of each sequence alone, [len(lengths), H, D].
        key, value: [T, H, D].
        lengths: of the sequences, in their order; they sum to T.
        dropout: probability, 0.0 in evaluation.
        scale: of the scores.

    Returns:
        Like query.
    """
    runs = [(length, len(list(same))) for length, same in groupby(lengths)]
    rows = [length * count for length, count in runs]
    asked = rows if len(query) == len(key) else [count for _, count in runs]
    attended = [
        _attend_equal(_heads_first(q, count), _heads_first(k, count), _heads_first(v, count), dropout, scale)
        for (_, count), q, k, v in zip(runs, query.split(asked), key.split(rows), value.split(rows), strict=True)
    ]
    return torch.cat([x.transpose(1, 2).flatten(0, 1) for x in attended])


def _heads_first(x: torch.Tensor, count: int) -> torch.Tensor:
    """[count * L, H, D] -> [count, H, L, D], a view."""
    return x.unflatten(0, (count, -1)).transpose(1, 2)


def _attend_equal(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float, scale: float
) -> torch.Tensor:
    if dropout == 0.0:
        return F.scaled_dot_product_attention(query, key, value, scale=scale)
    return _WithDropout.apply(query, key, value, dropout, scale)


class _WithDropout(torch.autograd.Function):
    """Attention with dropout for sequences of one length: [N, H, L, D] each.

    Kept for the backward pass: the inputs, the output and which probabilities were dropped, a byte each.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, dropout: float, scale: float
    ) -> torch.Tensor:
        shape = query.shape
        q, k, v = (x.flatten(0, 1) for x in (query, key, value))
        keep, up = mask((len(q), q.shape[1], k.shape[1]), dropout)
        output = torch.empty_like(q, memory_format=torch.contiguous_format)
        scores, weights = (q.new_empty(_block(keep), *keep.shape[1:]) for _ in range(2))
        for part in _blocks(keep):
            s, w = (x[: part.stop - part.start] for x in (scores, weights))
            torch.bmm(q[part] * scale, k[part].mT, out=s)
            torch.softmax(s, dim=-1, out=w)
            torch.mul(w, keep[part], out=s)
            torch.bmm(s, v[part] * up, out=output[part])
        ctx.save_for_backward(q, k, v, output, keep)
        ctx.up, ctx.scale, ctx.heads = up, scale, shape[1]
        return output.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        q, k, v, output, keep = ctx.saved_tensors
        g = gradient.flatten(0, 1)
        mean = (g * output).sum(dim=-1, keepdim=True)
        d_q, d_k, d_v = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
        scores, weights, kept = (q.new_empty(_block(keep), *keep.shape[1:]) for _ in range(3))
        for part in _blocks(keep):
            s, w, d = (x[: part.stop - part.start] for x in (scores, weights, kept))
            torch.bmm(q[part] * ctx.scale, k[part].mT, out=s)
            torch.softmax(s, dim=-1, out=w)
            torch.mul(w, keep[part], out=d)
            torch.bmm(d.mT, g[part] * ctx.up, out=d_v[part])
            torch.bmm(g[part] * ctx.up, v[part].mT, out=s)
            s.mul_(d).addcmul_(w, mean[part], value=-1)
            torch.bmm(s, k[part] * ctx.scale, out=d_q[part])
            torch.bmm(s.mT, q[part] * ctx.scale, out=d_k[part])
        d_q, d_k, d_v = (x.unflatten(0, (-1, ctx.heads)) for x in (d_q, d_k, d_v))
        return d_q, d_k, d_v, None, None


def _block(keep: torch.Tensor) -> int:
    """Matrices of scores in a block."""
    return min(len(keep), max(1, BLOCK // (keep.shape[1] * keep.shape[2])))


def _blocks(keep: torch.Tensor) -> Iterator[slice]:
    step = _block(keep)
    return (slice(start, min(start + step, len(keep))) for start in range(0, len(keep), step))
