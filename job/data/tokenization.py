"""Text to token ids, computed once, by one process per machine.

They are stored in a memory-mapped cache, where the other processes and later runs find them by fingerprint. Tokenizing
in the collator would save this pass, but the lengths must be known before batches can be planned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from job.data import tokenizer_digest
from job.data.sources import Source
from job.errors import Refused
from job.runtime import files

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

TOKENS = ("input_ids", "token_type_ids")
VERSION = 1
"""Incremented when `tokenize` gives other tokens than before, so that cached tokens are not reused."""
TRUNCATED = "truncated"
"""Column of the table of tokens: whether the text was truncated."""


def tokenize(source: Source, tokenizer: PreTrainedTokenizerBase, max_length: int, workers: int) -> Dataset:
    """The source's text as token ids, truncated to `max_length`; in pairs the longer text is truncated first.

    A row of a test set for which the tokenizer returns no tokens becomes one token, so that it can be predicted.

    Raises:
        Refused: `max_length` has no room for text. The tokenizer would not truncate at all.
    """
    from datasets import Features, List, Value

    text = source.columns.text
    special = tokenizer.num_special_tokens_to_add(pair=len(text) == 2)
    if max_length <= special:
        raise Refused(f"--max_seq_length {max_length} leaves no room for text: the tokenizer adds {special} special "
                      f"tokens: set it to {special + 1} or more")  # fmt: skip
    columns = [name for name in TOKENS if name in tokenizer.model_input_names]
    types = {"input_ids": Value("int32"), "token_type_ids": Value("int8")}
    filler = _token_for_nothing(tokenizer) if source.to_predict else None

    def encode(rows: Mapping[str, list[str | None]]) -> dict[str, Any]:
        texts = ([value or "" for value in rows[name]] for name in text)
        encoded = tokenizer(*texts, truncation=True, max_length=max_length)
        cut = [bool(encoding.overflowing) for encoding in encoded.encodings or ()]
        cut = cut or [len(ids) == max_length for ids in encoded["input_ids"]]  # slow tokenizers do not report it
        tokens = {name: encoded[name] for name in columns}
        return {**(tokens if filler is None else _filled(tokens, filler)), TRUNCATED: cut}

    return source.table.map(
        encode,
        batched=True,
        remove_columns=source.table.column_names,
        features=Features({**{name: List(types[name]) for name in columns}, TRUNCATED: Value("bool")}),
        num_proc=workers if workers > 1 else None,
        desc="tokenizing",
        # Set explicitly: the library's hash of the closure depends on the tokenizer's internal state, so that other
        # processes would miss the cache.
        new_fingerprint=_digest(
            [VERSION, source.fingerprint, tokenizer_digest.of(tokenizer), max_length, columns, filler]
        ),
    )


def _token_for_nothing(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token used for an empty text if the tokenizer adds no special tokens."""
    ids = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id)
    return next((number for number in ids if number is not None), None)


def _filled(tokens: Mapping[str, Sequence[list[int]]], filler: int) -> dict[str, list[list[int]]]:
    one = {"input_ids": filler, "token_type_ids": 0}
    return {name: [ids or [one[name]] for ids in rows] for name, rows in tokens.items()}


def lengths(tokens: Dataset) -> np.ndarray:
    """int32[rows], from the offsets of the Arrow lists, without reading the lists."""
    import pyarrow.compute as pc

    return pc.list_value_length(tokens.data.column("input_ids")).to_numpy().astype(np.int32)


def _digest(value: Any) -> str:
    return files.digest(value)[:32]
