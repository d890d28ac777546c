"""Text files and small models for the cases, made once: `python -m tests.gpu.world FOLDER`. Needs no network."""

from __future__ import annotations

import math
import random
import sys
from itertools import product
from pathlib import Path
from string import ascii_lowercase

from job.runtime import environment

CLASSES, TRAIN_ROWS, EVALUATION_ROWS = 3, 768, 256
WORDS = ["".join(pair) for pair in product(ascii_lowercase, repeat=2)]
"""Of two letters; two hundred of them are typical of each class."""


def rows(number: int, draw: random.Random) -> str:
    """A CSV file: long-tailed texts, four words in five typical of their class."""
    lines = ["text,label"]
    for _ in range(number):
        label = draw.randrange(CLASSES)
        length = min(300, max(3, int(math.exp(draw.gauss(3.6, 0.9)))))
        typical = WORDS[label * 200 : label * 200 + 200]
        words = (draw.choice(typical if draw.random() < 0.8 else WORDS) for _ in range(length))
        lines.append(f"{' '.join(words)},c{label}")
    return "\n".join(lines) + "\n"


def make(folder: Path) -> None:
    """train.csv, eval.csv, and two models: `model` with dropout 0.1, `plain` without."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from tests.support.tiny import tiny_tokenizer

    folder.mkdir(parents=True)
    draw = random.Random(0)
    (folder / "train.csv").write_text(rows(TRAIN_ROWS, draw), encoding="utf-8")
    (folder / "eval.csv").write_text(rows(EVALUATION_ROWS, draw), encoding="utf-8")
    for name, dropout in (("model", 0.1), ("plain", 0.0)):
        tiny_tokenizer(folder / name, WORDS, longest=512)
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=1000,
            hidden_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            intermediate_size=1024,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
        )
        BertForSequenceClassification(config).bert.save_pretrained(folder / name)


if __name__ == "__main__":
    environment.prepare()
    make(Path(sys.argv[1]))
