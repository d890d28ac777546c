"""Finds rows that a model cannot process before training starts: later they would end the run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from job.data.dataset import Data, Split, row_numbers
from job.errors import Refused
from job.model.tokenizers import READ_AT_END_TOKEN, vocabulary_size

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase


def check_rows(data: Data, tokenizer: PreTrainedTokenizerBase, pretrained: PreTrainedConfig) -> None:
    """Refused for tokens without embedding, and for end tokens in a text if the model's head reads the last one."""
    embeddings = vocabulary_size(pretrained)
    splits = {"training": data.train, "evaluation": data.evaluation, "test": data.test}
    for name, split in splits.items():
        if split is None:
            continue
        if embeddings is not None and _exceeds(tokenizer, embeddings):
            unknown = _count(split, lambda ids: ids >= embeddings)
            _refuse(split, unknown > 0, f"of the {name} data: it has a token that the model has no embedding for")
        if pretrained.model_type in READ_AT_END_TOKEN:
            ends = _count(split, lambda ids: ids == pretrained.eos_token_id)
            usual = np.bincount(ends).argmax()
            _refuse(split, ends != usual, f"of the {name} data: {tokenizer.eos_token} in a text ends it")


def _exceeds(tokenizer: PreTrainedTokenizerBase, embeddings: int) -> bool:
    """Whether the tokenizer has token ids without an embedding."""
    return bool(tokenizer.vocab_files_names) and max(tokenizer.get_vocab().values()) >= embeddings


def _count(split: Split, matches: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """int64[n], the number of tokens in each example for which `matches` is True."""
    column = split.tokens.data.column("input_ids")
    counts = []
    for chunk in column.chunks:
        ends = np.cumsum(matches(chunk.flatten().to_numpy()))
        bounds = chunk.offsets.to_numpy().astype(np.int64) - chunk.offsets[0].as_py()
        counts.append(np.diff(np.concatenate([[0], ends])[bounds]))
    rows = np.concatenate(counts)
    selection = split.tokens._indices
    return rows if selection is None else rows[selection.column(0).to_numpy()]


def _refuse(split: Split, bad: np.ndarray, why: str) -> None:
    rows = split.row_ids[bad].tolist()
    if rows:
        raise Refused(f"row{'s' * (len(rows) > 1)} {row_numbers(rows)} {why}; take it out of the text")
