"""Attention of a packed micro-batch: where its rows are, and the function that Transformers calls."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from job.model import cpu_attention, cuda_attention

UNSUPPORTED = ("softcap", "s_aux", "position_bias", "head_mask")
"""Arguments of Transformers' attention functions that ours does not take; None where a model has no use for them."""


class Layout(NamedTuple):
    """Where the rows of a packed micro-batch are.

    Attributes:
        lengths: of the rows, in their order; empty on CUDA, where they would make a new graph of each micro-batch.
        bounds: int32[b + 1], where each row begins, and where the last one ends.
        longest: tokens of the longest row of the run.
        mask: int64[b, L], 1 where the padded form has a token.
        places: int64[n], the places of the tokens in the flattened mask; n = T without tokens that only fill up.
    """

    lengths: tuple[int, ...]
    bounds: torch.Tensor
    longest: int
    mask: torch.Tensor
    places: torch.Tensor

    def pad(self, packed: torch.Tensor, value: int = 0) -> torch.Tensor:
        """[T, ...] -> [b, L, ...], `value` behind the rows."""
        padded = packed.new_full((self.mask.numel(), *packed.shape[1:]), value)
        return padded.index_copy(0, self.places, packed[: len(self.places)]).unflatten(0, self.mask.shape)


def forward(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    sliding_window: int | None = None,
    packed: Layout | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention function for packed inputs: [1, H, T, D] each -> [1, T, H, D].

    Raises:
        NotImplementedError: the model wants of attention what the kernels do not compute.
    """
    wanted = [name for name in UNSUPPORTED if kwargs.get(name) is not None]
    if wanted or attention_mask is not None or packed is None:
        reason = wanted[0] if wanted else "a mask of its own" if attention_mask is not None else "no packed layout"
        raise NotImplementedError(f"{type(module).__name__} calls attention with {reason}")
    causal = is_causal if is_causal is not None else getattr(module, "is_causal", True)
    window = None if sliding_window is None else sliding_window - 1  # the library counts the token itself
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return attend(q, k, v, packed, dropout, scaling, causal, window)[None], None


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, dropout: float,
    scale: float | None = None, causal: bool = False, window: int | None = None,
) -> torch.Tensor:  # fmt: skip
    """Attention within each row, by the device's kernel; see job/model/cpu_attention.py."""
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    if query.device.type == "cpu":
        return cpu_attention.attend(query, key, value, layout.lengths, dropout, scale, causal, window)
    return cuda_attention.attend(query, key, value, layout.bounds, layout.longest, dropout, scale, causal, window)
