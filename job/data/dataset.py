"""The data of a run: any source -> columns -> labels -> tokens."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from job.config import Config, task_settings
from job.config.tasks import KINDS, Task
from job.data import sources, statistics, texts, tokenization
from job.data.inputs import Inputs
from job.data.labels import encoding, recognition
from job.data.labels.reading import Reading
from job.data.library_errors import full_disk_refused
from job.data.sources import EVALUATION, TEST, Source
from job.errors import Refused
from job.runtime import files

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

SUBSET_SEED = 42
EVALUATION_SHARE = 0.1
ROWS_SHOWN = 8


@dataclass(frozen=True)
class Split:
    """Tokenized examples; row i of `tokens`, `lengths`, `labels` and `row_ids` is the same example.

    Attributes:
        tokens: table with input_ids (and token_type_ids if the model uses them), one list of ints per row, no padding.
        lengths: int32[n], tokens of each example, special tokens included.
        labels: int64[n] classes, float64[n] numbers or int8[n, C]; None for a test set without labels.
        row_ids: int32[n], row numbers in the source; not 0..n-1 if the split is a part of its source.
        pad_to: tokens to which every example is padded; None: only as far as its micro-batch needs.
        truncated: bool[n], whether tokens were cut off; None if that is not known.
        texts: the text columns of the source, memory-mapped; an example's text is in row `row_ids` of each.
    """

    tokens: Dataset
    lengths: np.ndarray
    labels: np.ndarray | None
    row_ids: np.ndarray
    pad_to: int | None = None
    truncated: np.ndarray | None = None
    texts: tuple[pa.ChunkedArray, ...] = ()

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def padded_lengths(self) -> np.ndarray:
        """int32[n], the tokens that batches are planned by: an example's own, or `pad_to`."""
        return self.lengths if self.pad_to is None else np.full_like(self.lengths, self.pad_to)

    def rows(self, indices: np.ndarray) -> dict[str, list[np.ndarray]]:
        """The token columns of these examples: one int array per example."""
        return {name: list(values) for name, values in self.tokens[indices.tolist()].items()}


@dataclass(frozen=True)
class Data:
    """The data of a run; `train` and `evaluation` are None if that phase is skipped, `test` without a test set.

    Attributes:
        label_column: None if no split has one.
        cut: whether the evaluation set was split off from the training data.
        remarks: how the files were read, for the `data` line of the log.
        description: statistics of the data, from job.data.statistics.
        test_inputs: all columns of the test set.
    """

    train: Split | None
    evaluation: Split | None
    test: Split | None
    task: Task
    text_columns: tuple[str, ...]
    label_column: str | None
    cut: bool
    remarks: tuple[str, ...]
    fingerprint: str
    description: Mapping[str, Any]
    test_inputs: Inputs | None = None

    @property
    def splits(self) -> tuple[Split, ...]:
        """The splits that are not None."""
        return tuple(split for split in (self.train, self.evaluation, self.test) if split is not None)


def prepare(config: Config, tokenizer: PreTrainedTokenizerBase, of_model: Task | None, max_length: int) -> Data:
    """Read, label and tokenize the data of a run.

    Args:
        config: the run's configuration.
        tokenizer: of the model.
        of_model: the task that the model was fine-tuned for; None if it was not.
        max_length: an example is truncated to this many tokens.

    Raises:
        Refused: data is missing, cannot be read, or is inconsistent.
    """
    import datasets

    with full_disk_refused(Path(datasets.config.HF_DATASETS_CACHE)):
        return _prepared(config, tokenizer, of_model, max_length)


def _prepared(config: Config, tokenizer: PreTrainedTokenizerBase, of_model: Task | None, max_length: int) -> Data:
    wanted = _wanted(config)
    read = sources.read(config.data, wanted)
    _refuse_empty(read, wanted)
    inputs = read[TEST].inputs if TEST in read else None
    if config.run.output_file and inputs is not None:
        inputs.check()
    reading = _read_labels(config, read, of_model)
    task = reading.task
    task_settings.check(config, task)
    encoded = {split: _encoded(source, reading, split) for split, source in read.items()}
    index = _parts(config, read, encoded)
    made: dict[str, Split] = {}
    described: dict[str, statistics.Part] = {}
    for split, rows in index.items():
        origin = split if split in read else "train"
        tokens = tokenization.tokenize(read[origin], tokenizer, max_length, config.data.preprocessing_num_workers)
        made[split], described[split] = _part(read[origin], tokens, encoded[origin], rows)
    if config.data.pad_to_max_length:
        made = {split: dataclasses.replace(part, pad_to=max_length) for split, part in made.items()}
    columns = read[next(iter(read))].columns
    description = statistics.describe(described, task.names, max_length)
    description["notes"] = [*reading.notes, *_notes(read.values())]
    return Data(
        train=made.get("train"),
        evaluation=made.get(EVALUATION),
        test=made.get(TEST),
        task=task,
        text_columns=columns.text,
        label_column=columns.label,
        cut=EVALUATION in made and EVALUATION not in read,
        remarks=tuple(dict.fromkeys(remark for source in read.values() for remark in source.remarks)),
        fingerprint=_fingerprint(read),
        description=description,
        test_inputs=inputs,
    )


def fetch(config: Config) -> None:
    """Download the dataset of a run and check that it has the splits of the run."""
    sources.fetch(config.data, _wanted(config))


def read_test_inputs(config: Config, fingerprint: str) -> Inputs | None:
    """All columns of the test set of a finished run, without tokenizing; None if there is no test set.

    Raises:
        Refused: the data no longer has the run's `fingerprint`, so its predictions are not those of these rows.
    """
    read = sources.read(config.data, _wanted(config))
    if _fingerprint(read) != fingerprint:
        raise Refused("the data changed since this run finished: choose another --output_dir, or start over with "
                      "--overwrite_output_dir")  # fmt: skip
    return read[TEST].inputs if TEST in read else None


def _fingerprint(read: Mapping[str, Source]) -> str:
    return files.digest({split: source.fingerprint for split, source in read.items()})[:32]


def _notes(read: Iterable[Source]) -> Iterator[str]:
    """Properties of the sources that a user may not expect."""
    for source in read:
        yield from source.notes
        if source.to_predict:
            empty, first = texts.count_empty(source.table, source.columns.text)
            if first is not None:
                rows = f"{empty:,} rows have no text and are" if empty > 1 else "1 row has no text and is"
                yield f"{source.origin}: {rows} still predicted; the first is {source.place(first)}"


def _wanted(config: Config) -> tuple[str, ...]:
    train = ("train",) if config.training.do_train else ()
    evaluation = (EVALUATION,) if config.training.do_eval else ()
    test = (TEST,) if config.data.test_file or config.data.test_split_name else ()
    return (*train, *evaluation, *test)


def _refuse_empty(read: Mapping[str, Source], wanted: tuple[str, ...]) -> None:
    if EVALUATION in wanted and not read.keys() & {"train", EVALUATION}:
        raise Refused("no evaluation data: give --validation_file or --validation_split_name")
    purpose = {"train": "to train on", EVALUATION: "to evaluate on", TEST: "to predict"}
    for split, source in read.items():
        if not len(source.table):
            raise Refused(f"{source.origin} has no rows {purpose[split]}")


def _read_labels(config: Config, read: Mapping[str, Source], of_model: Task | None) -> Reading:
    asked = config.data.problem_type
    kind = None if asked is None else KINDS[asked]
    if "train" in read:
        return recognition.read_task(read["train"], of_model, kind)
    if of_model is None:
        raise Refused("the model has no class names: give a fine-tuned model as --model_name_or_path")
    labelled = (source for source in read.values() if not recognition.is_unlabelled(source, of_model))
    return recognition.read_task_of_model(of_model, next(labelled, None), kind)


def _encoded(source: Source, reading: Reading, split: str) -> np.ndarray | None:
    """Labels of a whole source; None for a test set without labels."""
    unlabelled = split == TEST and recognition.is_unlabelled(source, reading.task)
    return None if unlabelled else encoding.encode(source, reading)


def _parts(
    config: Config, read: Mapping[str, Source], encoded: Mapping[str, np.ndarray | None]
) -> dict[str, np.ndarray]:
    """The rows that each split takes from its source: int32[n], ascending."""
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
    """Row numbers to train on and to evaluate on: int64[n], ascending. A stratified tenth, drawn with a fixed seed.

    A class of two rows or more has at least one row on each side. Regression and multi-label data are not stratified.

    Raises:
        Refused: too few rows to split.
    """
    rng = np.random.default_rng(SUBSET_SEED)
    strata = encoded if encoded.ndim == 1 and encoded.dtype.kind == "i" else np.zeros(len(encoded), dtype=np.int64)
    chosen = []
    for value in np.unique(strata):
        rows = rng.permutation(np.flatnonzero(strata == value))
        chosen.append(rows[: min(len(rows) - 1, max(1, round(len(rows) * EVALUATION_SHARE)))])
    evaluation = np.sort(np.concatenate(chosen))
    if not len(evaluation):
        raise Refused("too few training rows to split off an evaluation set: give --validation_file")
    return np.setdiff1d(np.arange(len(encoded)), evaluation), evaluation


def _part(
    source: Source, tokens: Dataset, encoded: np.ndarray | None, rows: np.ndarray
) -> tuple[Split, statistics.Part]:
    truncated = tokens.data.column(tokenization.TRUNCATED).to_numpy()
    kept = tokens.remove_columns(tokenization.TRUNCATED)
    lengths, labelled = tokenization.lengths(kept), encoded
    if not lengths.all():
        raise Refused(f"{source.place(int(lengths.argmin()))}: the tokenizer returns no tokens for the text: add text "
                      "or remove the row")  # fmt: skip
    if len(rows) < len(source.table):
        truncated, lengths, kept = truncated[rows], lengths[rows], kept.select(rows)
        labelled = None if encoded is None else encoded[rows]
    columns = [source.table.data.column(name) for name in source.columns.text]
    some = rows if len(rows) < len(source.table) else None
    part = statistics.Part(texts=columns, lengths=lengths, truncated=truncated, labels=labelled, rows=some)
    split = Split(kept.with_format("numpy"), lengths, labelled, rows, truncated=truncated, texts=tuple(columns))
    return split, part


def row_numbers(row_ids: Iterable[int]) -> str:
    """The first of these rows as messages number them, from 1 as in `Source.place`: "1, 5, 9"."""
    first = [str(row + 1) for row in itertools.islice(row_ids, ROWS_SHOWN + 1)]
    return ", ".join(first[:ROWS_SHOWN]) + (", ..." if len(first) > ROWS_SHOWN else "")


def subset(size: int, limit: int | None) -> np.ndarray:
    """Row numbers, ascending, of `limit` random rows: int64[min(size, limit)].

    The same rows as `dataset.shuffle(seed=42).select(range(limit))` in the Transformers tutorials. The seed is fixed,
    so that runs with different seeds are compared on the same rows.
    """
    if limit is None or limit >= size:
        return np.arange(size)
    return np.sort(np.random.default_rng(SUBSET_SEED).permutation(size)[:limit])
