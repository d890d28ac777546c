"""Any source -> columns -> labels -> tokens: what the model is trained and evaluated on.

Text is tokenised once, by one process per machine, into a memory-mapped cache that the others and the next run find
again by fingerprint. Tokenising in a collator, batch by batch, saves that first pass but hides the lengths, and the
lengths are what the batches are planned by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from job import labels, sources
from job.config import Config
from job.errors import Refused
from job.sources import EVALUATION, Source

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SUBSET_SEED = 42
TOKENS = ("input_ids", "token_type_ids")


@dataclass(frozen=True)
class Split:
    """Tokenised examples. `rows[i]` are numbered like `lengths` and `labels`.

    Attributes:
        tokens: table with input_ids (and token_type_ids where the model has them), one list of ints a row, no padding.
        lengths: int32[n], tokens of each example, special tokens included.
        labels: int64[n], class numbers.
        index: int64[n], the row's number in its source: differs from 0..n-1 only for a subset.
    """

    tokens: Dataset
    lengths: np.ndarray
    labels: np.ndarray
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def rows(self, indices: np.ndarray) -> dict[str, list[np.ndarray]]:
        """The token columns of some examples: one int array per example."""
        return self.tokens[indices.tolist()]


@dataclass(frozen=True)
class Data:
    """What a run works on; `train` is None when there is nothing to train."""

    train: Split | None
    evaluation: Split
    class_names: tuple[str, ...]
    text_columns: tuple[str, ...]
    label_column: str
    fingerprint: str


def prepare(config: Config, tokenizer: PreTrainedTokenizerBase, of_model: Sequence[str], max_length: int) -> Data:
    """Read, label and tokenise the data of a run.

    Args:
        config: the run's configuration.
        tokenizer: of the model.
        of_model: class names the pretrained model has; () for a model that has no classes of its own.
        max_length: tokens kept of an example.

    Raises:
        Refused: data that is not there, cannot be read, or does not fit together.
    """
    splits = ("train", EVALUATION) if config.training.do_train else (EVALUATION,)
    read = sources.read(config.data, splits)
    _refuse_empty(read)
    names = _class_names(read, of_model)
    limits = {"train": config.data.max_train_samples, EVALUATION: config.data.max_eval_samples}
    workers = config.data.preprocessing_num_workers
    made = {split: _split(read[split], names, tokenizer, max_length, limits[split], workers) for split in splits}
    return Data(
        train=made.get("train"),
        evaluation=made[EVALUATION],
        class_names=names,
        text_columns=read[EVALUATION].columns.text,
        label_column=str(read[EVALUATION].columns.label),
        fingerprint=_digest({split: source.fingerprint for split, source in read.items()}),
    )


def _refuse_empty(read: Mapping[str, Source]) -> None:
    for split, source in read.items():
        if not len(source.table):
            raise Refused(f"{source.origin} has no rows to {'train on' if split == 'train' else 'evaluate on'}")


def _class_names(read: Mapping[str, Source], of_model: Sequence[str]) -> tuple[str, ...]:
    if "train" in read:
        return labels.class_names(read["train"], of_model)
    if not of_model:
        raise Refused("the model has no class names of its own: evaluate a fine-tuned one, or train first")
    return tuple(of_model)


def _split(
    source: Source,
    names: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    limit: int | None,
    workers: int,
) -> Split:
    tokens = tokenise(source, tokenizer, max_length, workers)
    classes = labels.encode(source, names)
    index = subset(len(source.table), limit)
    lengths = _lengths(tokens)
    if limit is not None:
        tokens, classes, lengths = tokens.select(index), classes[index], lengths[index]
    return Split(tokens.with_format("numpy"), lengths, classes, index)


def subset(size: int, limit: int | None) -> np.ndarray:
    """Row numbers, ascending, of `limit` rows drawn at random: int64[min(size, limit)].

    The draw is that of `dataset.shuffle(seed=42).select(range(limit))`, the tutorials' own subset. Its seed is fixed:
    runs with other seeds are compared on the same rows.
    """
    if limit is None or limit >= size:
        return np.arange(size)
    return np.sort(np.random.default_rng(SUBSET_SEED).permutation(size)[:limit])


def tokenise(source: Source, tokenizer: PreTrainedTokenizerBase, max_length: int, workers: int) -> Dataset:
    """The source's text as token ids, truncated to `max_length`; pairs lose tokens of the longer text first."""
    from datasets import Features, List, Value

    text = source.columns.text
    columns = [name for name in TOKENS if name in tokenizer.model_input_names]
    types = {"input_ids": Value("int32"), "token_type_ids": Value("int8")}

    def encode(rows: Mapping[str, list[str]]) -> dict[str, Any]:
        encoded = tokenizer(*(rows[name] for name in text), truncation=True, max_length=max_length)
        return {name: encoded[name] for name in columns}

    return source.table.map(
        encode,
        batched=True,
        remove_columns=source.table.column_names,
        features=Features({name: List(types[name]) for name in columns}),
        num_proc=workers if workers > 1 else None,
        # Named here: the library's own hash of the closure changes with the tokenizer's inner state, and the cache
        # would be missed by the other processes.
        new_fingerprint=_digest([source.fingerprint, tokenizer_digest(tokenizer), max_length, columns]),
    )


def tokenizer_digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Identifies what a tokenizer does: vocabulary, normalisation and special tokens."""
    backend, side = getattr(tokenizer, "backend_tokenizer", None), tokenizer.truncation_side
    if backend is None:
        return _digest([tokenizer.name_or_path, side, sorted(tokenizer.get_vocab().items())])
    description = json.loads(backend.to_str())
    description.update(truncation=None, padding=None)  # set by the last call, not by what the tokenizer is
    return _digest([description, side])


def _lengths(tokens: Dataset) -> np.ndarray:
    """int32[rows], read off the offsets of the Arrow lists: no list is opened."""
    import pyarrow.compute as pc

    return pc.list_value_length(tokens.data.column("input_ids")).to_numpy().astype(np.int32)


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]
