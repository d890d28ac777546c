"""Rows of a micro-batch -> tensors, padded or packed; and the transfer to the device.

Tensors are created on the host, where a thread can do it ahead of time, and moved when needed: batches that wait for
their step take no GPU memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate.utils import recursively_apply

from job.data.dataset import Split
from job.model.packed_attention import Layout

Tensors = tuple[dict[str, Any], torch.Tensor | None]
"""Model inputs, and labels or None."""
Collate = Callable[[np.ndarray], Tensors]
"""Indices of examples -> their tensors, on the host. Deterministic and thread-safe."""


def pinned(tensors: Tensors, device: torch.device) -> Tensors:
    """For a GPU: copies in pinned memory, which can be transferred asynchronously. Otherwise unchanged."""
    if device.type != "cuda":
        return tensors
    with torch.cuda.device(device):  # another thread would pin for the first GPU, and create a context on it
        return recursively_apply(torch.Tensor.pin_memory, tensors)


def moved(tensors: Tensors, device: torch.device) -> Tensors:
    """The tensors on the device; the host does not wait for pinned ones."""
    return recursively_apply(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"), tensors)


@dataclass(frozen=True)
class Padding:
    """How rows are padded.

    Attributes:
        token_id, type_id: padding values of input_ids and token_type_ids.
        left: whether padding is on the left.
    """

    token_id: int
    type_id: int = 0
    left: bool = False


@dataclass(frozen=True)
class PackedFormat:
    """How rows are packed for a model on a device.

    Attributes:
        pad_token_id: id of the tokens that fill up a micro-batch.
        padding_position: token id and position of padding, after which positions start; None if they start at 0.
        round_to: the number of tokens is rounded up to a multiple of this.
        longest: tokens of the longest row of the run.
        with_lengths: whether to pass the lengths of the rows as Python ints too, which the CPU kernel needs.
    """

    pad_token_id: int
    padding_position: int | None
    round_to: int
    longest: int
    with_lengths: bool


def padded(split: Split, padding: Padding, indices: np.ndarray) -> Tensors:
    """Padded model inputs and labels of some examples.

    Returns:
        input_ids, attention_mask and, if the model uses them, token_type_ids: int64[b, longest of these examples];
        labels: int64[b] classes, float32[b] numbers or float32[b, C]; None if the split has none.
    """
    rows = split.rows(indices)
    mask = _mask(split.lengths[indices], split.pad_to)
    mask = mask[:, ::-1] if padding.left else mask
    fill = {"input_ids": padding.token_id, "token_type_ids": padding.type_id}
    inputs = {"attention_mask": mask.astype(np.int64)}
    for name, values in rows.items():
        table = np.full(mask.shape, fill[name], dtype=np.int64)
        table[mask] = np.concatenate(values)
        inputs[name] = table
    return {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in inputs.items()}, labels(split, indices)


def packed(split: Split, form: PackedFormat, indices: np.ndarray) -> Tensors:
    """Packed model inputs and labels of some examples, rounded up.

    Returns:
        input_ids, position_ids and, if the model uses them, token_type_ids: int64[1, T]; packed: Layout; labels as in
        `padded`.
    """
    lengths = split.lengths[indices]
    rows = {name: np.concatenate(values).astype(np.int64) for name, values in split.rows(indices).items()}
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    rows["position_ids"] = positions(rows["input_ids"], bounds, form.padding_position)
    fill = {"input_ids": form.pad_token_id, "position_ids": form.padding_position or 0}
    unused = -int(bounds[-1]) % form.round_to
    inputs: dict[str, Any] = {
        name: torch.from_numpy(np.pad(row, (0, unused), constant_values=fill.get(name, 0)))[None]
        for name, row in rows.items()
    }
    mask = _mask(lengths, None)
    inputs["packed"] = Layout(
        tuple(lengths.tolist()) if form.with_lengths else (),
        torch.from_numpy(bounds),
        form.longest,
        torch.from_numpy(mask.astype(np.int64)),
        torch.from_numpy(np.flatnonzero(mask)),
    )
    return inputs, labels(split, indices)


def positions(ids: np.ndarray, bounds: np.ndarray, padding_position: int | None) -> np.ndarray:
    """int64[T], from 0 in each row; for RoBERTa from after the padding token's, which a text may contain too."""
    lengths = np.diff(bounds)
    if padding_position is None:
        return np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
    real = ids != padding_position
    before = np.concatenate([[0], np.cumsum(real)])
    return np.where(real, before[1:] - np.repeat(before[bounds[:-1]], lengths), 0) + padding_position


def _mask(lengths: np.ndarray, width: int | None) -> np.ndarray:
    """bool[b, width], True where a row has a token; `width` None: the length of the longest row."""
    return np.arange(width or int(lengths.max()))[None, :] < lengths[:, None]


def labels(split: Split, indices: np.ndarray) -> torch.Tensor | None:
    """int64[b] classes, float32[b] numbers or float32[b, C]; None if the split has none."""
    if split.labels is None:
        return None
    values = split.labels[indices]
    return torch.from_numpy(values if values.dtype == np.int64 else values.astype(np.float32))
