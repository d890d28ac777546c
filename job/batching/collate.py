"""Rows of a micro-batch -> padded tensors; and their way to the device.

They are made on the host, where a thread can do it ahead of time (job/batching/prefetch.py), and moved when they are
needed: what waits for its step takes no memory of the GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import recursively_apply

from job.data.dataset import Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Tensors = tuple[dict[str, Any], torch.Tensor | None]
"""Model inputs, and labels or None."""
Collate = Callable[[np.ndarray], Tensors]
"""Numbers of examples -> their tensors, on the host. It draws no randomness, and any thread may call it."""


def pinned(tensors: Tensors, device: torch.device) -> Tensors:
    """For a GPU: copies in memory that it fetches from by itself, while the host goes on. Else as they are."""
    if device.type != "cuda":
        return tensors
    with torch.cuda.device(device):  # a thread of its own would pin for, and so set up, the first GPU
        return recursively_apply(torch.Tensor.pin_memory, tensors)


def moved(tensors: Tensors, device: torch.device) -> Tensors:
    """On the device; for those that are pinned the host does not wait."""
    return recursively_apply(lambda tensor: tensor.to(device, non_blocking=device.type == "cuda"), tensors)


def padded(split: Split, tokenizer: PreTrainedTokenizerBase, indices: np.ndarray) -> Tensors:
    """Model inputs and labels of some examples.

    Returns:
        input_ids, attention_mask and, where the model has them, token_type_ids: int64[b, longest of these examples];
        labels: int64[b] classes, float32[b] numbers or float32[b, C]; None where the split has none.
    """
    rows = split.rows(indices)
    lengths = split.lengths[indices]
    width = split.width or int(lengths.max())
    mask = np.arange(width)[None, :] < lengths[:, None]
    left = tokenizer.padding_side == "left"
    mask = mask[:, ::-1] if left else mask
    fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    inputs = {"attention_mask": mask.astype(np.int64)}
    for name, values in rows.items():
        table = np.full((len(indices), width), fill[name], dtype=np.int64)
        table[mask] = np.concatenate(values)
        inputs[name] = table
    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in inputs.items()}
    return tensors, labels(split, indices)


def labels(split: Split, indices: np.ndarray) -> torch.Tensor | None:
    """int64[b] classes, float32[b] numbers or float32[b, C]; None where the split has none."""
    if split.labels is None:
        return None
    values = split.labels[indices]
    return torch.from_numpy(values if values.dtype == np.int64 else values.astype(np.float32))
