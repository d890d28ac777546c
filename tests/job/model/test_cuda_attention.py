"""What the CUDA kernels are asked for, seen on meta tensors; what they compute is seen on a GPU (tests/gpu)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from job.model import cuda_attention
from job.model.attention_spec import AttentionSpec

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
FLASH, EFFICIENT = "_flash_attention_forward", "_efficient_attention_forward"
EFFICIENT_BACKWARD = "_efficient_attention_backward"
DROPOUT = {BF16: 0.1, FP16: 0.1, FP32: 0.0}
T, B, LONGEST, HEADS = 100, 5, 64, 4


class Calls(TorchDispatchMode):
    """Attention kernels that were called, with their arguments by name."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if "_attention_" in name:
            self.seen.append((name, dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs))
        assert name != "_local_scalar_dense", "the host would wait for the device"
        if name == EFFICIENT_BACKWARD:  # whose shapes PyTorch cannot tell: its function for that lacks an argument
            return *map(torch.empty_like, args[1:4]), None
        return func(*args, **(kwargs or {}))


def call(
    dtype: torch.dtype, queries: int = T, key_heads: int = HEADS, channels: int = 32, **options: Any
) -> tuple[torch.Tensor, list[torch.Tensor], list[tuple[str, dict[str, Any]]]]:
    """The output, the gradients of query, key and value, and the kernels called."""
    shapes = [(queries, HEADS, channels), (T, key_heads, channels), (T, key_heads, channels)]
    inputs = [torch.empty(shape, dtype=dtype, device="meta", requires_grad=True) for shape in shapes]
    bounds = torch.empty(B + 1, dtype=torch.int32, device="meta")
    with Calls() as calls:
        query, key, value = inputs
        output = cuda_attention.attend(
            query, key, value, bounds, LONGEST, AttentionSpec(DROPOUT[dtype], 0.25, **options)
        )
        output.backward(torch.empty_like(output))
    gradients = [x.grad for x in inputs if x.grad is not None]
    return output, gradients, calls.seen


@pytest.mark.parametrize(("dtype", "kernel"), [(BF16, FLASH), (FP16, FLASH), (FP32, EFFICIENT)])
@pytest.mark.parametrize("queries", [T, B])
@pytest.mark.parametrize("key_heads", [HEADS, 1])
@pytest.mark.parametrize("channels", [32, 20])
def test_shapes_and_gradients(dtype: torch.dtype, kernel: str, queries: int, key_heads: int, channels: int) -> None:
    output, gradients, calls = call(dtype, queries, key_heads, channels)
    assert (output.shape, output.dtype) == ((queries, HEADS, channels), dtype)
    assert [g.shape for g in gradients] == [(queries, HEADS, channels), *[(T, key_heads, channels)] * 2]
    assert [name for name, _ in calls] == [kernel, kernel.replace("forward", "backward")]


@pytest.mark.parametrize(("dtype", "longest"), [(BF16, ("max_q", "max_k")), (FP32, ("max_seqlen_q", "max_seqlen_k"))])
@pytest.mark.parametrize(("queries", "expected"), [(T, (LONGEST, LONGEST)), (B, (1, LONGEST))])
def test_the_longest_query_is_1_where_each_sequence_has_one(
    dtype: torch.dtype, longest: tuple[str, str], queries: int, expected: tuple[int, int]
) -> None:
    _, _, [(_, asked), _] = call(dtype, queries)
    assert tuple(asked[name] for name in longest) == expected
    assert (asked["dropout_p"], asked["scale"]) == (DROPOUT[dtype], 0.25)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (False, None, None)),
        ({"causal": True}, (True, None, None)),
        ({"window": 7}, (False, 7, 7)),
        ({"causal": True, "window": 7}, (False, 7, 0)),
    ],
)
def test_masks_of_flash_attention(options: dict[str, Any], expected: tuple[bool, int | None, int | None]) -> None:
    _, _, calls = call(BF16, **options)
    assert len(calls) == 2
    for _, asked in calls:  # the gradient must be that of the same mask
        limits = asked.get("window_size_left"), asked.get("window_size_right")
        assert (asked["is_causal"], *limits) == expected


@pytest.mark.parametrize(("causal", "expected"), [(False, 0), (True, 2)])
def test_masks_of_the_efficient_kernel(causal: bool, expected: int) -> None:
    _, _, calls = call(FP32, causal=causal)
    assert [asked["custom_mask_type"] for _, asked in calls] == [expected, expected]


@pytest.mark.parametrize(("dtype", "queries", "causal"), [(FP32, T, False), (FP32, T, True), (BF16, B, False)])
def test_windows_that_no_kernel_computes_are_an_error(dtype: torch.dtype, queries: int, causal: bool) -> None:
    with pytest.raises(NotImplementedError, match="windowed attention"):
        call(dtype, queries, causal=causal, window=LONGEST - 2)
    call(dtype, queries, causal=causal, window=LONGEST - 1)  # limits nothing


@contextmanager
def autocast(dtype: torch.dtype) -> Iterator[None]:
    """As torch.autocast("cuda"), which refuses on a machine without a GPU."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)


def test_autocast_decides_the_kernel() -> None:
    q, k, v = (torch.empty(T, HEADS, 32, dtype=dtype, device="meta") for dtype in (FP32, FP32, BF16))
    bounds = torch.empty(B + 1, dtype=torch.int32, device="meta")
    with autocast(BF16), Calls() as calls:
        assert cuda_attention.attend(q, k, v, bounds, LONGEST, AttentionSpec(0.0, 1.0)).dtype == BF16
    assert [name for name, _ in calls.seen] == [FLASH]


def test_dropout_in_fp32_is_an_error_and_not_a_wrong_gradient() -> None:
    q, k, v = (torch.empty(T, HEADS, 32, device="meta") for _ in range(3))
    bounds = torch.empty(B + 1, dtype=torch.int32, device="meta")
    with pytest.raises(NotImplementedError, match="use --mixed_precision bf16 or --attention_dropout 0"):
        cuda_attention.attend(q, k, v, bounds, LONGEST, AttentionSpec(0.1, 1.0))
