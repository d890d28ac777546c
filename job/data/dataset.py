"""Any source -> columns -> labels -> tokens: what the model is trained and evaluated on.

Text is tokenised once, by one process per machine, into a memory-mapped cache that the others and the next run find
again by fingerprint. Tokenising in a collator, batch by batch, saves that first pass but hides the lengths, and the
lengths are what the batches are planned by.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from job.config import Config
from job.config.tasks import KINDS, Task
from job.data import labels, resident, sources, statistics
from job.data.labels import Reading
from job.data.sources import EVALUATION, TEST, Source
from job.errors import Refused

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SUBSET_SEED = 42
EVALUATION_SHARE = 0.1
TOKENS = ("input_ids", "token_type_ids")
TRUNCATED = "truncated"
AT_ONCE = 64
"""Rows read before their pages are let go: each may bring 64 KB of either column along."""


@dataclass(frozen=True)
class Split:
    """Tokenised examples; `tokens`, `lengths` and `labels` are numbered alike.

    Attributes:
        tokens: table with input_ids (and token_type_ids where the model has them), one list of ints a row, no padding.
        lengths: int32[n], tokens of each example, special tokens included.
        labels: int64[n] classes, float64[n] numbers or int8[n, C]; None for a test set without labels.
        index: int32[n], the row's number in its source: differs from 0..n-1 only for a part of it.
        width: tokens that every example is padded to; None: no more than the micro-batch needs.
    """

    tokens: Dataset
    lengths: np.ndarray
    labels: np.ndarray | None
    index: np.ndarray
    width: int | None = None

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def computed(self) -> np.ndarray:
        """int32[n], the tokens an example costs before padding to its micro-batch: what batches are planned by."""
        return self.lengths if self.width is None else np.full_like(self.lengths, self.width)

    def rows(self, indices: np.ndarray) -> dict[str, list[np.ndarray]]:
        """The token columns of some examples: one int array per example."""
        read: dict[str, list[np.ndarray]] = {name: [] for name in self.tokens.column_names}
        for start in range(0, len(indices), AT_ONCE):
            for name, values in self.tokens[indices[start : start + AT_ONCE].tolist()].items():
                read[name].extend(values)
            resident.let_go(self._mapped)
        return read

    @cached_property
    def _mapped(self) -> resident.Ranges:
        return resident.mapped(self.tokens.data.column("input_ids"))


@dataclass(frozen=True)
class Data:
    """What a run works on; `train` and `evaluation` are None when that is not to be done, `test` without a test set.

    Attributes:
        label_column: None where no split has one.
        cut: whether the evaluation set was cut from the training data.
        description: what the data looks like, as job.data.statistics says it.
    """

    train: Split | None
    evaluation: Split | None
    test: Split | None
    task: Task
    text_columns: tuple[str, ...]
    label_column: str | None
    cut: bool
    fingerprint: str
    description: Mapping[str, Any]


def prepare(config: Config, tokenizer: PreTrainedTokenizerBase, of_model: Task | None, max_length: int) -> Data:
    """Read, label and tokenise the data of a run.

    Args:
        config: the run's configuration.
        tokenizer: of the model.
        of_model: what the pretrained model was fine-tuned for; None if it was not.
        max_length: tokens kept of an example.

    Raises:
        Refused: data that is not there, cannot be read, or does not fit together.
    """
    wanted = _wanted(config)
    read = sources.read(config.data, wanted)
    _refuse_nothing(read, wanted)
    reading = _read_labels(config, read, of_model)
    task = reading.task
    encoded = {split: _encoded(source, reading, split) for split, source in read.items()}
    index = _parts(config, read, encoded)
    made: dict[str, Split] = {}
    described: dict[str, statistics.Part] = {}
    for split, rows in index.items():
        origin = split if split in read else "train"
        tokens = tokenise(read[origin], tokenizer, max_length, config.data.preprocessing_num_workers)
        made[split], described[split] = _part(read[origin], tokens, encoded[origin], rows)
    if config.data.pad_to_max_length:
        made = {split: dataclasses.replace(part, width=max_length) for split, part in made.items()}
    columns = read[next(iter(read))].columns
    resident.trim()  # of what reading left, then of what describing does: the two would be the peak of the whole run
    description = statistics.describe(described, task.names, max_length) | {"notes": list(reading.notes)}
    resident.trim()
    return Data(
        train=made.get("train"),
        evaluation=made.get(EVALUATION),
        test=made.get(TEST),
        task=task,
        text_columns=columns.text,
        label_column=columns.label,
        cut=EVALUATION in made and EVALUATION not in read,
        fingerprint=_digest({split: source.fingerprint for split, source in read.items()}),
        description=description,
    )


def _wanted(config: Config) -> tuple[str, ...]:
    train = ("train",) if config.training.do_train else ()
    evaluation = (EVALUATION,) if config.training.do_eval else ()
    test = (TEST,) if config.data.test_file or config.data.test_split_name else ()
    return (*train, *evaluation, *test)


def _refuse_nothing(read: Mapping[str, Source], wanted: tuple[str, ...]) -> None:
    if EVALUATION in wanted and not read.keys() & {"train", EVALUATION}:
        raise Refused("nothing to evaluate on: give --validation_file, or name the split with --validation_split_name")
    purpose = {"train": "to train on", EVALUATION: "to evaluate on", TEST: "to predict"}
    for split, source in read.items():
        if not len(source.table):
            raise Refused(f"{source.origin} has no rows {purpose[split]}")


def _read_labels(config: Config, read: Mapping[str, Source], of_model: Task | None) -> Reading:
    asked = config.data.problem_type
    kind = None if asked is None else KINDS[asked]
    if "train" in read:
        return labels.read_task(read["train"], of_model, kind)
    if of_model is None:
        raise Refused("the model has no class names of its own: give a fine-tuned one as --model_name_or_path")
    labelled = (source for source in read.values() if not labels.is_unlabelled(source, of_model))
    return labels.read_task_of_model(of_model, next(labelled, None), kind)


def _encoded(source: Source, reading: Reading, split: str) -> np.ndarray | None:
    """Labels of a whole source; None for a test set without any."""
    unlabelled = split == TEST and labels.is_unlabelled(source, reading.task)
    return None if unlabelled else labels.encode(source, reading)


def _parts(
    config: Config, read: Mapping[str, Source], encoded: Mapping[str, np.ndarray | None]
) -> dict[str, np.ndarray]:
    """The rows of its source that each split takes: int32[n], ascending."""
    parts = {split: np.arange(len(source.table), dtype=np.int32) for split, source in read.items()}
    train = encoded.get("train")
    if EVALUATION not in parts and train is not None:
        parts["train"], parts[EVALUATION] = cut_evaluation(train)
    limits = {
        "train": config.data.max_train_samples,
        EVALUATION: config.data.max_eval_samples,
        TEST: config.data.max_predict_samples,
    }
    taken = {split: rows[subset(len(rows), limits[split])] for split, rows in parts.items()}
    return {split: rows.astype(np.int32) for split, rows in taken.items()}


def cut_evaluation(encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers to train on and to evaluate on: int64[n], ascending; a tenth of each class, drawn with a fixed seed.

    A class of two rows or more gives at least one to each side. Numbers and sets of labels have no strata.

    Raises:
        Refused: too few rows to cut any off.
    """
    rng = np.random.default_rng(SUBSET_SEED)
    strata = encoded if encoded.ndim == 1 and encoded.dtype.kind == "i" else np.zeros(len(encoded), dtype=np.int64)
    chosen = []
    for value in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == value))
        chosen.append(rows[: min(len(rows) - 1, max(1, round(len(rows) * EVALUATION_SHARE)))])
    evaluation = np.sort(np.concatenate(chosen))
    if not len(evaluation):
        raise Refused("too few rows to cut an evaluation set from: give --validation_file")
    return np.setdiff1d(np.arange(len(encoded)), evaluation), evaluation


def _part(
    source: Source, tokens: Dataset, encoded: np.ndarray | None, rows: np.ndarray
) -> tuple[Split, statistics.Part]:
    truncated = tokens.data.column(TRUNCATED).to_numpy()
    kept = tokens.remove_columns(TRUNCATED)
    lengths, labelled = _lengths(kept), encoded
    if not lengths.all():  # an empty text, which a tokenizer without special tokens makes nothing of
        raise Refused(f"{source.origin}, row {lengths.argmin() + 1}: the tokenizer finds no token in it: write text")
    if len(rows) < len(source.table):
        truncated, lengths, kept = truncated[rows], lengths[rows], kept.select(rows)
        labelled = None if encoded is None else encoded[rows]
    resident.let_go(resident.mapped(kept.data.column("input_ids")))
    texts = [source.table.data.column(name) for name in source.columns.text]
    some = rows if len(rows) < len(source.table) else None
    part = statistics.Part(texts=texts, lengths=lengths, truncated=truncated, labels=labelled, rows=some)
    return Split(kept.with_format("numpy"), lengths, labelled, rows), part


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
        cut = [bool(encoding.overflowing) for encoding in encoded.encodings or ()]
        cut = cut or [len(ids) == max_length for ids in encoded["input_ids"]]  # a tokenizer that does not tell
        return {**{name: encoded[name] for name in columns}, TRUNCATED: cut}

    return source.table.map(
        encode,
        batched=True,
        remove_columns=source.table.column_names,
        features=Features({**{name: List(types[name]) for name in columns}, TRUNCATED: Value("bool")}),
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
