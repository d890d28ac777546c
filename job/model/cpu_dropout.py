"""Fast dropout for CPUs.

PyTorch draws one random number per element, on one core: with the usual probability of 0.1 in every layer this takes a
tenth of a training step, and more in bf16. Here one 64-bit number is used for four elements, and numpy draws it in half
the time. Each draw is seeded from PyTorch's generator, so results depend on that generator's state only. On a GPU,
PyTorch's dropout is fast enough and is used.
"""

from __future__ import annotations

import numpy as np
import torch

CHUNK = 2**19
"""Elements whose random numbers are drawn at a time: they stay in the cache."""


def drop_plainly(x: torch.Tensor, kept: torch.Tensor, probability: float) -> torch.Tensor:
    """Reference implementation of `Dropout` for a given mask; tests compare the two."""
    return torch.where(kept.bool(), x / (1 - probability), 0)


class DropoutSampler:
    """Draws the mask of a dropout layer for one forward pass.

    The probability is rounded to 1/65536.

    Attributes:
        scale: factor for the elements that are kept, 1 / (1 - probability).
    """

    def __init__(self, probability: float) -> None:
        dropped = round(probability * 2**16)
        self.scale = 2**16 / max(2**16 - dropped, 1)
        self._threshold = dropped - 2**15
        self._numbers = np.random.SFC64(int(torch.empty((), dtype=torch.int64).random_()))

    def dropped(self, out: torch.Tensor) -> None:
        """Fill `out`, a contiguous integer tensor of any shape, with 1 where dropped and 0 where kept."""
        torch.lt(self._draw(out), self._threshold, out=out)

    def kept(self, out: torch.Tensor) -> None:
        """The opposite: 1 where kept. Pass a uint8 tensor: comparing into a bool tensor is four times slower."""
        torch.ge(self._draw(out), self._threshold, out=out)

    def _draw(self, out: torch.Tensor) -> torch.Tensor:
        drawn = self._numbers.random_raw(-(-out.numel() // 4)).view(np.int16)
        return torch.from_numpy(drawn)[: out.numel()].view(out.shape)


class Dropout(torch.nn.Dropout):
    """torch.nn.Dropout with `DropoutSampler` for tensors on the CPU."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Same shape as input."""
        if not self.training or self.p == 0.0 or self.p == 1.0 or input.device.type != "cpu":
            return super().forward(input)
        sampler, keep = DropoutSampler(self.p), torch.empty(input.shape, dtype=torch.uint8)
        for part in keep.view(-1).split(CHUNK):
            sampler.kept(part)
        return (input * keep).mul_(sampler.scale)


def replace_dropout(model: torch.nn.Module) -> None:
    """Replace every torch.nn.Dropout of `model`, in place; its subclasses are not replaced."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) is torch.nn.Dropout:
                setattr(parent, name, Dropout(child.p).train(child.training))
