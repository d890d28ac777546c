"""Dropout on a CPU at the price of a multiplication.

PyTorch draws a random number an element, on one core: with the usual 0.1 in every layer that is a tenth of a training
step, and more in bf16. Here a number of 64 bits decides four elements, and numpy draws it in half the time; PyTorch's
generator seeds each draw, so that its state alone decides all of them. On a GPU the library's own is as good as free
and is kept.
"""

from __future__ import annotations

import numpy as np
import torch

CHUNK = 2**19
"""Elements whose random numbers are drawn at a time, so that they stay in the cache."""


class Draws:
    """What a dropout layer drops in one forward pass.

    The probability is rounded to 1/65536.

    Attributes:
        up: the factor that keeps the mean, that of the rounded probability.
    """

    def __init__(self, probability: float) -> None:
        dropped = round(probability * 2**16)
        self.up = 2**16 / max(2**16 - dropped, 1)
        self._below = dropped - 2**15
        self._numbers = np.random.SFC64(int(torch.empty((), dtype=torch.int64).random_()))

    def dropped(self, out: torch.Tensor) -> None:
        """Fill `out`, contiguous integers of any shape, with 1 where dropped and 0 where kept."""
        torch.lt(self._drawn(out), self._below, out=out)

    def kept(self, out: torch.Tensor) -> None:
        """Likewise with 1 where kept. Into bytes: PyTorch compares into bool at a quarter of the speed."""
        torch.ge(self._drawn(out), self._below, out=out)

    def _drawn(self, out: torch.Tensor) -> torch.Tensor:
        drawn = self._numbers.random_raw(-(-out.numel() // 4)).view(np.int16)
        return torch.from_numpy(drawn)[: out.numel()].view(out.shape)


class Dropout(torch.nn.Dropout):
    """torch.nn.Dropout with `Draws` for tensors on the CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Like input, of any shape."""
        if not self.training or self.p == 0.0 or self.p == 1.0 or input.device.type != "cpu":
            return super().forward(input)
        draws, keep = Draws(self.p), torch.empty(input.shape, dtype=torch.uint8)
        for part in keep.view(-1).split(CHUNK):
            draws.kept(part)
        return (input * keep).mul_(draws.up)


def speed_up(model: torch.nn.Module) -> None:
    """Let every torch.nn.Dropout of `model` be such a one, in place; nothing else of the model changes."""
    for module in model.modules():
        if type(module) is torch.nn.Dropout:
            module.__class__ = Dropout
