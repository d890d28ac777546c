"""Attention over concatenated sequences on a CUDA GPU: each within itself, without padding.

Both kernels come with PyTorch, which uses them in the same way for nested tensors. FlashAttention supports bf16 and
fp16, with dropout; torch.nn.attention.varlen_attn, which calls it too, has no dropout. The memory-efficient kernel is
used for fp32. With sequences of different lengths its dropout is wrong: the forward pass uses one mask for all heads of
all sequences, and the backward pass another one (torch 2.11; `make test-gpu` prints whether it still is).

Nothing here synchronizes the host with the device.

    T  tokens of all sequences     b  sequences     H  heads     Hkv  heads of keys and values     D  channels of a head
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from job.model.attention_spec import AttentionSpec

Ends = tuple[torch.Tensor, torch.Tensor, int, int]
"""Cumulative lengths of the queries, those of the keys, and the longest query and key sequence."""

ALIGNMENT = 8
"""Both kernels need a number of channels that is a multiple of this."""

NO_MASK, CAUSAL_FROM_BOTTOM_RIGHT = 0, 2
"""Mask types of the memory-efficient kernel."""

NO_DROPOUT = (
    "attention dropout in fp32 has no packed kernel on a GPU: use --mixed_precision bf16 or --attention_dropout 0"
)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bounds: torch.Tensor,
    longest: int,
    spec: AttentionSpec,
) -> torch.Tensor:
    """Attention within every sequence.

    Under autocast the inputs are cast to its dtype, as in F.scaled_dot_product_attention.

    Args:
        query: [T, H, D]; or [b, H, D] with one token per sequence: the last one if causal, else the first one.
        key, value: [T, Hkv, D]; H is a multiple of Hkv.
        bounds: int32[b + 1] on the device, where each sequence begins and the last one ends. They must cover all T
            tokens: the kernels leave other tokens of the output uninitialized.
        longest: upper bound of the sequence lengths. If it is constant in a run, compiled graphs are reused.
        spec: parameters of the attention; dropout is not supported in fp32.

    Returns:
        Same shape as query, in the dtype of the computation.

    Raises:
        RuntimeError: the kernel does not support the GPU, the head dimension, the window or the dropout.
    """
    one_each = len(query) != len(key)
    if spec.window is not None and spec.window >= longest - 1:
        spec = AttentionSpec(spec.dropout, spec.scale, spec.causal)
    if one_each and spec.window is not None and not spec.causal:
        raise NotImplementedError("windowed attention of first tokens only: the kernels align windows at the end")
    channels = value.shape[-1]
    query, key, value = (_aligned(_autocast(x)) for x in (query, key, value))
    ends = (bounds, bounds, longest, longest)
    if one_each:
        ends = (torch.arange(len(bounds), dtype=torch.int32, device=bounds.device), bounds, 1, longest)
    kernel = _flash if query.dtype in (torch.bfloat16, torch.float16) else _memory_efficient
    attended = kernel(query, key, value, ends, spec)
    return attended[..., :channels]


def _autocast(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to(torch.get_autocast_dtype("cuda")) if torch.is_autocast_enabled("cuda") else tensor


def _aligned(tensor: torch.Tensor) -> torch.Tensor:
    """Pad the channels with zeros: this changes no score, and the caller cuts the added channels of the output."""
    missing = -tensor.shape[-1] % ALIGNMENT
    return F.pad(tensor, (0, missing)) if missing else tensor


def _flash(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: Ends, spec: AttentionSpec
) -> torch.Tensor:
    """FlashAttention 2."""
    limits = {}
    if spec.window is not None:
        limits = {"window_size_left": spec.window, "window_size_right": 0 if spec.causal else spec.window}
    only_causal = spec.causal and spec.window is None
    return torch.ops.aten._flash_attention_forward(
        query, key, value, *ends, spec.dropout, only_causal, False, scale=spec.scale, **limits
    )[0]


def _memory_efficient(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, ends: Ends, spec: AttentionSpec
) -> torch.Tensor:
    """The CUTLASS kernel. It has no two-sided windows, and PyTorch's backward pass ignores a one-sided one."""
    if spec.window is not None:
        raise NotImplementedError("windowed attention in fp32 has no kernel: use --mixed_precision bf16")
    if spec.dropout:
        raise NotImplementedError(NO_DROPOUT)
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
    differentiated = any(x.requires_grad for x in (query, key, value))
    return torch.ops.aten._efficient_attention_forward(
        query[None], key[None], value[None], None, *ends, 0.0,
        CAUSAL_FROM_BOTTOM_RIGHT if spec.causal else NO_MASK, differentiated,
        scale=spec.scale,
    )[0][0]  # fmt: skip
