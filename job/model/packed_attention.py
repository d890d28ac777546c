"""Attention of a packed micro-batch: where its rows are, and the function that Transformers calls."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from job.model import cpu_attention, cuda_attention
from job.model.attention_spec import AttentionSpec

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
    *,
    packed: Layout | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Transformers' attention function for packed inputs: [1, H, T, D] each -> [1, T, H, D].

    Args:
        module: of the model, which calls this.
        query, key, value: of all rows.
        attention_mask: None.
        packed: where the rows are.
        **options: of Transformers' attention functions: dropout, scaling, is_causal, sliding_window, and others that
            must not be set or do not matter.

    Raises:
        NotImplementedError: the model wants of attention what the kernels do not compute.
    """
    wanted = [name for name in UNSUPPORTED if options.get(name) is not None]
    if wanted or attention_mask is not None or packed is None:
        reason = wanted[0] if wanted else "a mask of its own" if attention_mask is not None else "no packed layout"
        raise NotImplementedError(f"{type(module).__name__} calls attention with {reason}")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return attend(q, k, v, packed, _spec(module, query.shape[-1], options))[None], None


def _spec(module: torch.nn.Module, channels: int, options: dict[str, Any]) -> AttentionSpec:
    """Transformers' options as ours, with its defaults."""
    scale, causal, window = (options.get(name) for name in ("scaling", "is_causal", "sliding_window"))
    return AttentionSpec(
        dropout=options.get("dropout", 0.0),
        scale=channels**-0.5 if scale is None else scale,
        causal=getattr(module, "is_causal", True) if causal is None else causal,
        window=None if window is None else window - 1,  # the library counts the token itself
    )


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, spec: AttentionSpec
) -> torch.Tensor:
    """Attention within each row, by the device's kernel; see job/model/cpu_attention.py."""
    if query.device.type == "cpu":
        return cpu_attention.attend(query, key, value, layout.lengths, spec)
    return cuda_attention.attend(query, key, value, layout.bounds, layout.longest, spec)
