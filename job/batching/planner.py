"""Global batch -> micro-batches of every process: pure functions of lengths, seed and limits. No torch.

    n  examples of a split      B  examples of a global batch      W  processes (world size)
    L  tokens of an example     T  token limit of a process's forward pass, padding included

An epoch is a seeded permutation split into global batches: as random as plain shuffling. Within a global batch the
order does not matter to the gradient, so there, and only there, examples are sorted by length, split into micro-batches
with little padding under T, and distributed so that all processes finish together. Sampling by length instead
(group_by_length) saves the same padding but makes every batch a biased sample.

Packed micro-batches (job/model/packing.py) have no padding: their cost is the sum of their tokens. A batch is split
into as few of them as possible, with equal sums. Models whose results depend on padding get micro-batches of rows of
equal length.

Every process has the same number of micro-batches in a step, because the last one of each ends in a collective.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np


@dataclass(frozen=True)
class Shape:
    """How the rows of a micro-batch become tensors.

    Attributes:
        kind: packed: [1, T]; padded: [b, longest]; equal: [b, L], only rows of equal length.
        round_to: the number of tokens of a packed micro-batch is rounded up to a multiple of this.
    """

    kind: Literal["packed", "padded", "equal"]
    round_to: int = 1


PADDED, EQUAL = Shape("padded"), Shape("equal")


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one forward pass.

    Attributes:
        indices: int32[b], indices of the examples, longest first.
        weight: 1.0; 0.0 if the process had no example left and repeats one in order to take part.
    """

    indices: np.ndarray
    weight: float = 1.0


def epoch_order(size: int, seed: int, epoch: int) -> np.ndarray:
    """The order of an epoch: int32[size], a permutation that depends only on the arguments."""
    order = np.arange(size, dtype=np.int32)
    np.random.default_rng([seed, epoch]).shuffle(order)
    return order


def steps_per_epoch(size: int, batch_size: int) -> int:
    """Global batches of an epoch, including a smaller last one."""
    return -(-size // batch_size)


def global_batches(size: int, batch_size: int, seed: int, steps: int, start: int = 0) -> Iterator[np.ndarray]:
    """The examples of steps `start` .. `steps - 1`, counted from 0 over all epochs: int32[b] each, b <= batch_size.

    The permutation is computed once per epoch.
    """
    per_epoch = steps_per_epoch(size, batch_size)
    order, current = np.empty(0, dtype=np.int32), -1
    for step in range(start, steps):
        epoch, number = divmod(step, per_epoch)
        if epoch != current:
            del order  # before the next one, which is as large, is allocated
            order, current = epoch_order(size, seed, epoch), epoch
        yield order[number * batch_size : (number + 1) * batch_size].copy()  # a view would keep `order` alive


def plan_step(
    indices: np.ndarray, lengths: np.ndarray, max_tokens: int, world: int, overhead: int, shape: Shape = PADDED
) -> list[list[MicroBatch]]:
    """The micro-batches of each process for one global batch.

    Args:
        indices: int32[B], the examples of the global batch.
        lengths: int32[n], tokens of every example of the split.
        max_tokens: T.
        world: W.
        overhead: the fixed cost of a micro-batch, in tokens: a new one is started only when that saves more padding.
        shape: of the micro-batches. Packed ones are rounded up; above T only if the longest example alone is.

    Returns:
        W lists of equal length. Each example is in exactly one micro-batch of weight 1.

    Raises:
        ValueError: a single example is longer than T.
    """
    order = indices[np.argsort(-lengths[indices], kind="stable")]
    sizes = lengths[order].tolist()
    if sizes[0] > max_tokens:
        raise ValueError(f"an example of {sizes[0]} tokens does not fit into max_tokens_per_device {max_tokens}")
    if shape.kind == "packed":
        return _plan_packed(order, sizes, max(max_tokens // shape.round_to * shape.round_to, sizes[0]), world)
    equal = shape.kind == "equal"
    bounds = _cut_by_length(sizes, max_tokens) if equal else _cut_by_padding(sizes, max_tokens, overhead)
    if world > 1:
        wanted = min(len(sizes), -(-(len(bounds) - 1) // world) * world)
        bounds = _split_widest(bounds, sizes, wanted) if equal else _balanced_cut(sizes, max_tokens, wanted)
    micro = [MicroBatch(order[start:stop]) for start, stop in pairwise(bounds)]
    costs = [sizes[start] * (stop - start) for start, stop in pairwise(bounds)]
    while len(micro) % world:
        micro.append(MicroBatch(order[-1:], weight=0.0))
        costs.append(0)
    return _deal(micro, costs, world)


def plan_evaluation(lengths: np.ndarray, max_tokens: int, world: int, shape: Shape = PADDED) -> list[list[np.ndarray]]:
    """The micro-batches of each process for a whole evaluation set, each example once.

    The set is split into micro-batches before these are distributed, so that their shapes, and with them every
    probability, do not depend on the number of processes. The lists may differ in length and be empty: no collective
    runs between micro-batches.
    """
    order = np.argsort(-lengths, kind="stable")
    sizes = lengths[order].tolist()
    if shape.kind == "packed":
        bounds = _cut_by_sum(sizes, max_tokens // shape.round_to * shape.round_to)
    elif shape.kind == "equal":
        bounds = _cut_by_length(sizes, max_tokens)
    else:
        bounds = _cut(sizes, max_tokens)
    micro = [order[start:stop] for start, stop in pairwise(bounds)]
    return [micro[rank::world] for rank in range(world)]


def tokens_of(
    micro_batches: Sequence[MicroBatch], lengths: np.ndarray, widths: np.ndarray, shape: Shape = PADDED
) -> tuple[int, int]:
    """(real tokens, computed tokens) of micro-batches.

    Args:
        micro_batches: of all processes.
        lengths, widths: tokens of each example, and the tokens that the plan was based on.
        shape: of the micro-batches.
    """
    real = sum(int(lengths[m.indices].sum()) for m in micro_batches if m.weight)
    if shape.kind == "packed":
        sums = (int(lengths[m.indices].sum()) for m in micro_batches)
        return real, sum(-(-tokens // shape.round_to) * shape.round_to for tokens in sums)
    computed = sum(int(widths[m.indices].max()) * len(m.indices) for m in micro_batches)
    return real, computed


def _cut(sizes: Sequence[int], max_tokens: int) -> list[int]:
    """Bounds of the fewest runs of `sizes` (descending) whose rows x longest fit into `max_tokens`."""
    bounds = [0]
    while bounds[-1] < len(sizes):
        longest = sizes[bounds[-1]]
        bounds.append(min(len(sizes), bounds[-1] + max(1, max_tokens // max(1, longest))))
    return bounds


def _cut_by_length(sizes: Sequence[int], max_tokens: int) -> list[int]:
    """Bounds of the fewest runs of equal length that fit into `max_tokens`."""
    bounds = [0]
    for i, size in enumerate(sizes):
        if i > bounds[-1] and (size != sizes[bounds[-1]] or (i + 1 - bounds[-1]) * size > max_tokens):
            bounds.append(i)
    return [*bounds, len(sizes)]


def _cut_by_sum(sizes: Sequence[int], max_tokens: int) -> list[int]:
    """Bounds of the fewest runs of `sizes` whose sums fit into `max_tokens`; a row that does not fit is a run."""
    bounds, total = [0], 0
    for i, size in enumerate(sizes):
        if total + size > max_tokens and i > bounds[-1]:
            bounds.append(i)
            total = 0
        total += size
    return [*bounds, len(sizes)]


def _plan_packed(order: np.ndarray, sizes: Sequence[int], max_tokens: int, world: int) -> list[list[MicroBatch]]:
    """As few micro-batches as possible, equally many per process; `sizes`, descending, are those of `order`."""
    rounds = -(-sum(sizes) // (max_tokens * world))
    while (bins := _even_bins(sizes, max_tokens, rounds * world)) is None:
        rounds += 1
    micro = [MicroBatch(order[rows]) if rows else MicroBatch(order[-1:], weight=0.0) for rows in bins]
    return _deal(micro, [sum(sizes[i] for i in rows) for rows in bins], world)


def _even_bins(sizes: Sequence[int], max_tokens: int, number: int) -> list[list[int]] | None:
    """Rows assigned longest first, each to the emptiest of `number` bins; None if a bin would exceed `max_tokens`."""
    bins: list[list[int]] = [[] for _ in range(number)]
    emptiest = [(0, i) for i in range(number)]
    for row, size in enumerate(sizes):
        total, i = emptiest[0]
        if total + size > max_tokens:
            return None
        heapq.heapreplace(emptiest, (total + size, i))
        bins[i].append(row)
    return bins


def _cut_by_padding(sizes: Sequence[int], max_tokens: int, overhead: int) -> list[int]:
    """Bounds of runs of `sizes` (descending), each ended before its padding exceeds `overhead`.

    Within a few percent of the optimum, which takes a dynamic program twenty times as long.
    """
    bounds, padding, longest = [0], 0, sizes[0]
    for i, size in enumerate(sizes):
        padding += longest - size
        if padding > overhead or (i + 1 - bounds[-1]) * longest > max_tokens:
            bounds.append(i)
            padding, longest = 0, size
    return [*bounds, len(sizes)]


def _balanced_cut(sizes: Sequence[int], max_tokens: int, wanted: int) -> list[int]:
    """Bounds of `wanted` runs that minimise the cost of the costliest one; more runs if T requires them."""
    low, high = sizes[0], max_tokens
    while low < high:
        middle = (low + high) // 2
        if len(_cut(sizes, middle)) - 1 <= wanted:
            high = middle
        else:
            low = middle + 1
    return _split_widest(_cut(sizes, high), sizes, wanted)


def _split_widest(bounds: list[int], sizes: Sequence[int], wanted: int) -> list[int]:
    """`bounds`, with the costliest runs of two or more rows halved until there are `wanted` runs."""
    bounds = list(bounds)
    while len(bounds) - 1 < wanted:
        runs = [(sizes[a] * (b - a), a, b) for a, b in pairwise(bounds) if b - a > 1]
        _, start, stop = max(runs)
        bounds.insert(bounds.index(stop), (start + stop) // 2)
    return bounds


def _deal(micro: Sequence[MicroBatch], costs: Sequence[int], world: int) -> list[list[MicroBatch]]:
    """Costliest first, each to the process with the least work that has room: equal counts, nearly equal sums."""
    room = len(micro) // world
    shares: list[list[MicroBatch]] = [[] for _ in range(world)]
    load = [0] * world
    for i in sorted(range(len(micro)), key=lambda i: -costs[i]):
        rank = min((r for r in range(world) if len(shares[r]) < room), key=load.__getitem__)
        shares[rank].append(micro[i])
        load[rank] += costs[i]
    return shares
