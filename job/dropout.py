"""Dropout on a CPU at the price of a multiplication.

PyTorch draws a random number an element, on one core: with the usual 0.1 in every layer that is a tenth of a training
step. Here a number of 64 bits decides four elements. On a GPU the library's own is as good as free and is kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

CHUNK = 2**19
"""Elements whose random numbers are drawn at a time, so that they stay in the cache."""


def mask(shape: Sequence[int], probability: float) -> tuple[torch.Tensor, float]:
    """(uint8[shape], 1 where kept, else 0; the factor that keeps the mean) on the CPU, from the default generator.

    The probability is rounded to 1/65536, and the factor is that of the rounded one. Bytes, because PyTorch compares
    into bool at a quarter of the speed and multiplies by it at half.
    """
    dropped = round(probability * 2**16)
    keep = torch.empty(*shape, dtype=torch.uint8)
    bits = torch.empty(-(-min(keep.numel(), CHUNK) // 4), dtype=torch.int64)
    for part in keep.view(-1).split(CHUNK):
        torch.ge(bits.random_(-(2**63), None).view(torch.int16)[: len(part)], dropped - 2**15, out=part)
    return keep, 2**16 / max(2**16 - dropped, 1)


class Dropout(torch.nn.Dropout):
    """torch.nn.Dropout with `mask` for tensors on the CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Like input, of any shape."""
        if not self.training or self.p == 0.0 or self.p == 1.0 or input.device.type != "cpu":
            return super().forward(input)
        keep, up = mask(input.shape, self.p)
        return (input * keep).mul_(up)


def speed_up(model: torch.nn.Module) -> None:
    """Let every torch.nn.Dropout of `model` be such a one, in place; nothing else of the model changes."""
    for module in model.modules():
        if type(module) is torch.nn.Dropout:
            module.__class__ = Dropout
