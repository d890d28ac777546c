"""What is computed of queries, keys and values, the same for every kernel."""

from __future__ import annotations

from typing import NamedTuple


class AttentionSpec(NamedTuple):
    """softmax(Q K' scale) V with dropout of the probabilities, over the tokens that are not masked.

    Attributes:
        dropout: probability, 0.0 in evaluation.
        scale: of the scores.
        causal: whether a token attends only to itself and those before it.
        window: largest distance of two tokens that attend to each other; None for no limit.
    """

    dropout: float
    scale: float
    causal: bool = False
    window: int | None = None
