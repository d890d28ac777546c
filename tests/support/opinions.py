"""Film reviews that a tiny model learns to classify in a few dozen steps."""

from __future__ import annotations

import random
from pathlib import Path

from tests.support.tiny import tiny_model, tiny_tokenizer

GOOD, BAD, FILLER = ["great", "lovely", "superb"], ["awful", "bad", "poor"], ["the", "film", "was", "a", "story"]


def untrained(folder: Path) -> None:
    """Save a model without a head and a tokenizer that knows the words."""
    tiny_tokenizer(folder, GOOD + BAD + FILLER)
    tiny_model(folder, num_labels=None, hidden=32, dropout=0.0)


def opinion(rng: random.Random, longest_filler: int) -> tuple[int, str]:
    """How good the film was, 0 to 4, and the text that says so."""
    good = rng.randint(0, 4)
    words = [*rng.choices(GOOD, k=good), *rng.choices(BAD, k=4 - good)]
    return good, " ".join([*words, *rng.choices(FILLER, k=rng.randint(1, longest_filler))])


def tags(good: int) -> list[str]:
    """Several labels of a review."""
    return ["praise"] * (good > 0) + ["blame"] * (good < 4)
