"""Rows of a micro-batch -> padded tensors on the device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from job.data import Split

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Collate = Callable[[np.ndarray], tuple[dict[str, Any], torch.Tensor | None]]
"""Numbers of examples -> (model inputs, labels or None)."""


def padded(
    split: Split, tokenizer: PreTrainedTokenizerBase, device: torch.device, indices: np.ndarray
) -> tuple[dict[str, torch.Tensor], torch.Tensor | None]:
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
    tensors = {name: torch.from_numpy(np.ascontiguousarray(v)).to(device) for name, v in inputs.items()}
    return tensors, labels(split, indices, device)


def labels(split: Split, indices: np.ndarray, device: torch.device) -> torch.Tensor | None:
    """int64[b] classes, float32[b] numbers or float32[b, C]; None where the split has none."""
    if split.labels is None:
        return None
    values = split.labels[indices]
    return torch.from_numpy(values if values.dtype == np.int64 else values.astype(np.float32)).to(device)
