"""What the machine itself allows: its rate of matrix products at the shapes of the model's layers."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

Shape = tuple[int, int, int]


def layer_shapes(tokens: int, hidden: int, inner: int) -> list[Shape]:
    """(rows, in, out) of the products of one encoder layer: query, key, value, output and the two of the MLP."""
    return [(tokens, hidden, hidden)] * 4 + [(tokens, hidden, inner), (tokens, inner, hidden)]


def flops_per_second(shapes: Sequence[Shape], precision: str, device: str, seconds: float) -> float:
    """Rate of the products of `shapes`, one after the other, repeated for about this many seconds."""
    import torch

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    draw: dict[str, Any] = {"dtype": dtype, "device": device}
    factors = [(torch.randn(rows, a, **draw), torch.randn(b, a, **draw)) for rows, a, b in shapes]

    repeats = 50 if device == "cuda" else 1  # a GPU is waited for once in many products

    def run() -> None:
        for _ in range(repeats):
            for left, right in factors:
                torch.nn.functional.linear(left, right)
        if device == "cuda":
            torch.cuda.synchronize()

    run()
    begun, passes = time.perf_counter(), 0
    while time.perf_counter() - begun < seconds:
        run()
        passes += repeats
    return passes * sum(2 * rows * a * b for rows, a, b in shapes) / (time.perf_counter() - begun)
