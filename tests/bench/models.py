"""The models of the bench: folders with weights, tokenizer and a head for the workload's classes.

The head is saved with the weights, so that all contestants start from the same model to the last bit.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
             "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "vocab_size": 1000},
    "bert-base": {"vocab_size": 30522},
}  # fmt: skip
"""Random weights; what is not named is BERT-base's. `tiny` has no dropout: its runs can be compared step by step."""
EMBEDDED = "sentence-transformers/all-MiniLM-L6-v2"
DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def make(size: str, classes: Sequence[str], texts: Iterable[str], folder: Path) -> None:
    """Write the model of a size to `folder`, and to `folder`-without-dropout with the same weights."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

    from job.model import loading as job_model

    labels: dict[str, Any] = {
        "id2label": dict(enumerate(classes)),
        "label2id": {name: i for i, name in enumerate(classes)},
    }
    torch.manual_seed(0)
    if size in SHAPES:
        tokenizer = _tokenizer(texts, SHAPES[size]["vocab_size"])
        network = AutoModelForSequenceClassification.from_config(BertConfig(**SHAPES[size], **labels))
    else:
        source = job_model.locate(EMBEDDED, None)
        tokenizer = AutoTokenizer.from_pretrained(source)
        network = AutoModelForSequenceClassification.from_pretrained(source, num_labels=len(classes), **labels)
    network.config.problem_type = "single_label_classification"
    job_model.save(network, tokenizer, folder)
    _without_dropout(folder, folder.with_name(f"{folder.name}-without-dropout"))


def _tokenizer(texts: Iterable[str], size: int) -> Any:
    """A lower-casing WordPiece tokenizer whose vocabulary is learnt from `texts`."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizer

    learnt = BertWordPieceTokenizer()
    learnt.train_from_iterator(texts, vocab_size=size, show_progress=False)
    return BertTokenizer(vocab=learnt.get_vocab(), model_max_length=512)


def _without_dropout(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | DROPOUT), encoding="utf-8")


def forward_flops(config: Any, lengths: Any) -> tuple[Any, Any]:
    """Floating point operations of one forward pass of each example, padding not counted.

    A multiplication and an addition count as two; matrix products only, which are all but a few per cent.

    Args:
        config: of a BERT.
        lengths: int[n], tokens of each example.

    Returns:
        float64[n], of the model as it is written; and float64[n], of what its answer needs: the head reads the first
        token, so the last layer's other tokens are keys and values only. A training step takes three times as many.
    """
    hidden, inner, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    tokens = lengths.astype("float64")
    a_token, head = 8 * hidden**2 + 4 * hidden * inner, 2 * hidden**2 + 2 * hidden * config.num_labels
    layer = tokens * a_token + 4 * hidden * tokens**2
    last = tokens * (4 * hidden**2 + 4 * hidden) + a_token - 4 * hidden**2
    return layers * layer + head, (layers - 1) * layer + last + head
