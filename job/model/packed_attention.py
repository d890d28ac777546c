"""Attention of a packed micro-batch: its layout, and the attention function that Transformers calls."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from job.model import cpu_attention, cuda_attention
from job.model.attention_spec import AttentionSpec

UNSUPPORTED = ("softcap", "s_aux", "position_bias", "head_mask")
"""Arguments of Transformers' attention functions that ours does not support; a model that does not use them passes
None."""


class Layout(NamedTuple):
    """The positions of the rows in a packed micro-batch.

    Attributes:
        lengths: lengths of the rows, in order; empty on CUDA, where they would cause a recompilation per micro-batch.
        bounds: int32[b + 1], where each row begins, and where the last one ends.
        longest: length of the longest row in the run.
        mask: int64[b, L], the attention mask of the padded form.
        places: int64[n], positions of the tokens in the flattened mask; n is T minus the filler tokens at the end.
    """

    lengths: tuple[int, ...]
    bounds: torch.Tensor
    longest: int
    mask: torch.Tensor
    places: torch.Tensor

    def pad(self, packed: torch.Tensor, value: int = 0) -> torch.Tensor:
        """[T, ...] -> [b, L, ...], padded with `value`."""
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
        module: the calling attention module.
        query, key, value: projections of all rows.
        attention_mask: must be None.
        packed: the layout of the rows.
        **options: options of Transformers' attention functions. Used are dropout, scaling, is_causal and
            sliding_window; those in UNSUPPORTED must be None; others are ignored.

    Raises:
        NotImplementedError: the model needs something that the kernels do not support.
    """
    unsupported = [name for name in UNSUPPORTED if options.get(name) is not None]
    if unsupported or attention_mask is not None or packed is None:
        reason = (
            unsupported[0] if unsupported else "a mask of its own" if attention_mask is not None else "no packed layout"
        )
        raise NotImplementedError(f"{type(module).__name__} calls attention with {reason}")
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    return attend(q, k, v, packed, _spec(module, query.shape[-1], options))[None], None


def _spec(module: torch.nn.Module, channels: int, options: dict[str, Any]) -> AttentionSpec:
    """The attention parameters, from Transformers' options and defaults."""
    scale, causal, window = (options.get(name) for name in ("scaling", "is_causal", "sliding_window"))
    return AttentionSpec(
        dropout=options.get("dropout", 0.0),
        scale=channels**-0.5 if scale is None else scale,
        causal=getattr(module, "is_causal", True) if causal is None else causal,
        window=None if window is None else window - 1,  # Transformers counts the token itself
    )


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, spec: AttentionSpec
) -> torch.Tensor:
    """Attention within each row, by the device's kernel; see job/model/cpu_attention.py."""
    if query.device.type == "cpu":
        return cpu_attention.attend(query, key, value, layout.lengths, spec)
    return cuda_attention.attend(query, key, value, layout.bounds, layout.longest, spec)
