"""The parameters of an attention computation, shared by all kernels."""

from __future__ import annotations

from typing import NamedTuple


class AttentionSpec(NamedTuple):
    """softmax(Q K' scale) V with dropout of the probabilities, over the tokens that are not masked.

    Attributes:
        dropout: probability, 0.0 in evaluation.
        scale: factor applied to the scores.
        causal: whether a token attends only to itself and those before it.
        window: largest distance between two tokens that attend to each other; None for no limit.
    """

    dropout: float
    scale: float
    causal: bool = False
    window: int | None = None
