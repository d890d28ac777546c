"""What the CUDA kernels are asked for, seen on meta tensors; what they compute is seen on a GPU (tests/gpu)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend
from torch.utils._python_dispatch import TorchDispatchMode

from job.batching import collate
from job.batching.collate import PackedFormat
from job.config.tasks import SINGLE_LABEL
from job.model import cuda_attention, packing
from job.model.attention_spec import AttentionSpec
from tests.support.pairs import LENGTHS, PAD, pairs

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


# ---------------------------------------------------------------------------------------------------------------------
# Compiled

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
COMPILED: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "llama": {**SMALL, "num_key_value_heads": 2},
    "modernbert": {**SMALL, "local_attention": 8, **dict.fromkeys(("bos_token_id", "eos_token_id"), 2)},
}


def graphs_after_each(architecture: str, dynamic: bool) -> list[int]:
    """How many graphs were compiled after each of some packed micro-batches, forward and backward."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    settings = {"vocab_size": 90, "pad_token_id": PAD, "num_labels": 3, **COMPILED[architecture]}
    with torch.device("meta"):
        config = AutoConfig.for_model(architecture, **settings)
        model = AutoModelForSequenceClassification.from_config(config, dtype=BF16).train()
    packing.enable(model)
    split = pairs(SINGLE_LABEL, architecture if architecture == "bert" else "distilbert")
    form = PackedFormat(PAD, packing.padding_position(model), 1, max(LENGTHS), with_lengths=False)
    torch._dynamo.reset()
    graphs, found = CompileCounterWithBackend("eager"), []
    model.compile(fullgraph=True, dynamic=dynamic, backend=graphs)
    for rows in [[0, 1, 2], [1, 3], [4, 5, 6, 7], [0, 9, 2, 3, 5], [2, 3, 4]]:
        inputs = collate.moved(collate.packed(split, form, np.array(rows)), torch.device("meta"))[0]
        assert inputs["packed"].lengths == ()
        model(**inputs).logits.float().sum().backward()
        found.append(graphs.frame_count)
    return found


@pytest.mark.long
@pytest.mark.parametrize("architecture", COMPILED)
def test_packed_micro_batches_of_all_shapes_share_their_graphs(architecture: str) -> None:
    """One that pads the token ids for the head, and one of all that is computed."""
    assert graphs_after_each(architecture, dynamic=True) == [2] * 5


@pytest.mark.long
def test_graphs_of_fixed_shapes_would_be_compiled_for_each() -> None:
    assert graphs_after_each("bert", dynamic=False) == [2, 4, 6, 8, 10]
