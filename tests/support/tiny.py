"""Transformers folders small enough to be made inside a test: random weights, a vocabulary of its choice.

Trade-off taken: the folders are written by Transformers itself, so they load through the same code as a real
model, at the price of importing it (inside the functions, so that a test which needs none does not wait).
Not chosen: checkpoint files kept in the repository, which would age with the library and hide their origin.
"""

import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_LONGEST_TEXT = 64


def tiny_tokenizer(folder: Path, words: Iterable[str], longest: int = _LONGEST_TEXT) -> None:
    """Save a lower-casing BERT WordPiece tokenizer; single letters spell any word that is not listed."""
    from transformers import BertTokenizer

    letters = string.ascii_lowercase + string.digits
    tokens = [*SPECIAL_TOKENS, *letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    tokens += [word.lower() for word in words]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(parents=True, exist_ok=True)
    BertTokenizer(vocab=vocabulary, model_max_length=longest).save_pretrained(folder)


def tiny_model(
    folder: Path,
    *,
    architecture: str = "bert",
    layers: int = 2,
    hidden: int = 16,
    dropout: float = 0.1,
    seed: int = 0,
    num_labels: int | None = 2,
) -> None:
    """Save a random-weight model, with a classification head unless `num_labels` is None.

    A tokenizer already in the folder is kept and decides the vocabulary's size; otherwise one without words
    is written. The caller's random state is not changed: making a model must not change a test's result.
    """
    import torch
    from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

    if not (folder / "tokenizer.json").exists():
        tiny_tokenizer(folder, ())
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    config = _config(architecture, layers, hidden, dropout, tokenizer)
    config.num_labels = num_labels if num_labels is not None else config.num_labels
    model_class: Any = AutoModel if num_labels is None else AutoModelForSequenceClassification
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        model_class.from_config(config).save_pretrained(folder)


def _config(architecture: str, layers: int, hidden: int, dropout: float, tokenizer: Any) -> Any:
    """Token ids come from the tokenizer: defaults differ by architecture, and Roberta's positions use one."""
    shared = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
    }
    if architecture == "distilbert":
        return _distilbert(shared, layers, hidden, dropout)
    return _bert_like(architecture, shared, layers, hidden, dropout)


def _bert_like(architecture: str, shared: dict[str, Any], layers: int, hidden: int, dropout: float) -> Any:
    from transformers import BertConfig, CamembertConfig, ElectraConfig, RobertaConfig, XLMRobertaConfig

    # RoBERTa numbers positions from pad_token_id + 1, so it needs that many more of them for the same text.
    # Two token types let it read the segment ids that a BERT tokenizer gives to the second text of a pair.
    positions = _LONGEST_TEXT + shared["pad_token_id"] + 1
    classes = {
        "bert": BertConfig,
        "camembert": CamembertConfig,
        "electra": ElectraConfig,
        "roberta": RobertaConfig,
        "xlm-roberta": XLMRobertaConfig,
    }
    if architecture not in classes:
        raise ValueError(f"unknown architecture {architecture!r}: expected distilbert or one of {', '.join(classes)}")
    own: dict[str, Any] = {"embedding_size": hidden} if architecture == "electra" else {}
    return classes[architecture](
        **own,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=positions,
        type_vocab_size=2,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        **shared,
    )


def _distilbert(shared: dict[str, Any], layers: int, hidden: int, dropout: float) -> Any:
    from transformers import DistilBertConfig

    return DistilBertConfig(
        dim=hidden,
        n_layers=layers,
        n_heads=2,
        hidden_dim=2 * hidden,
        max_position_embeddings=_LONGEST_TEXT,
        dropout=dropout,
        attention_dropout=dropout,
        seq_classif_dropout=dropout,
        **shared,
    )
