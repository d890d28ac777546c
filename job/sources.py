"""Any source of rows -> a memory-mapped table of text and label, in the order of the source.

Local csv and jsonl go through job.tables, which changes no value; parquet and the hub through `datasets`. Rows stay on
disk in every case, so memory does not grow with the data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job import columns, config, docstrings, tables
from job.columns import Columns
from job.errors import Refused

if TYPE_CHECKING:
    from datasets import Dataset

EVALUATION = "validation"


@dataclass(frozen=True)
class Source:
    """Rows of one split: `table` has the columns that `columns` names; `origin` is what messages call it."""

    table: Dataset
    columns: Columns
    origin: str
    fingerprint: str
    json_labels: bool = False  # labels are JSON text: files whose label types are only known row by row


def read(data: config.Data, splits: tuple[str, ...]) -> dict[str, Source]:
    """The sources of `splits` ("train", "validation").

    Raises:
        Refused: a file, data set, split or column that is not there or cannot be read.
    """
    if data.dataset_name == "docstrings":
        return _read_docstrings(data, splits)
    if data.dataset_name:
        names = {"train": data.train_split_name, EVALUATION: data.validation_split_name}
        return {split: _read_dataset(data, names[split]) for split in splits}
    files = {"train": data.train_file, EVALUATION: data.validation_file}
    return {split: _read_file(data, str(files[split])) for split in splits}


def _read_docstrings(data: config.Data, splits: tuple[str, ...]) -> dict[str, Source]:
    import datasets

    files = docstrings.files(Path(datasets.config.HF_DATASETS_CACHE))
    chosen = {split: _read_file(data, str(files[split])) for split in splits}
    return {
        split: Source(s.table, s.columns, f"docstrings ({split})", s.fingerprint, s.json_labels)
        for split, s in chosen.items()
    }


# ---------------------------------------------------------------------------------------------------------------------
# Files


def _read_file(data: config.Data, path: str) -> Source:
    if Path(path).suffix == ".parquet":
        return _read_parquet(data, path)
    chosen = columns.choose(tables.columns(path), data.text_column_names, data.label_column_name, path)
    fingerprint = _digest(file_digest(path), chosen.text, chosen.label)
    return Source(_generated(path, chosen, fingerprint), chosen, path, fingerprint, json_labels=True)


def _generated(path: str, chosen: Columns, fingerprint: str) -> Dataset:
    """The file's rows as an Arrow table in the cache, written once and found again by the file's content."""
    from datasets import Dataset, Features, Value

    features = Features({name: Value("string") for name in chosen.all})
    if next(tables.rows(path, chosen.all), None) is None:  # which from_generator does not take
        return Dataset.from_dict({name: [] for name in chosen.all}, features=features)
    options = {"path": path, "chosen": chosen}
    try:
        return Dataset.from_generator(_texts_and_label, features=features, gen_kwargs=options, fingerprint=fingerprint)
    except Exception as error:  # the library wraps what a generator raises
        raise _refusal(error) from error


def _texts_and_label(path: str, chosen: Columns) -> Iterator[dict[str, str]]:
    for number, row in enumerate(tables.rows(path, chosen.all), 1):
        for name in chosen.text:
            if not isinstance(row[name], str):
                raise Refused(f"{path}, row {number}: {name} is not text but {row[name]!r}")
            if not row[name].isascii():
                _refuse_half_characters(path, number, row[name])
        if chosen.label is not None:
            row[chosen.label] = json.dumps(row[chosen.label], ensure_ascii=False)
        yield row


def _refuse_half_characters(path: str, number: int, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        half = text[error.start].encode("unicode_escape").decode()
        raise Refused(f"{path}, row {number}: {half} is half a character: its text was cut or badly written") from None


def _refusal(error: BaseException) -> Exception:
    """The Refused that a library's error was caused by, or the error itself."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Refused):
        cause = cause.__cause__ or cause.__context__
    return cause if isinstance(cause, Exception) else RuntimeError(str(error))


def _read_parquet(data: config.Data, path: str) -> Source:
    from datasets import Dataset

    try:
        table = Dataset.from_parquet(path)
    except Exception as error:
        raise Refused(f"{path} cannot be read as parquet: {_one_line(error)}") from error
    return _checked(table, data, path, file_digest(path))


# ---------------------------------------------------------------------------------------------------------------------
# Data sets of the hub, or folders laid out as one


def _read_dataset(data: config.Data, split: str) -> Source:
    """A split of a data set on the hub or in a folder.

    The repository is fetched at its revision first and read as a folder. `load_dataset` by name would, offline or when
    the hub does not answer, take whatever revision was prepared last, with no more than a warning.
    """
    from datasets import get_dataset_split_names, load_dataset

    label = " ".join(filter(None, (data.dataset_name, data.dataset_config_name)))
    folder = _fetched(str(data.dataset_name), data.dataset_revision)
    try:
        there = get_dataset_split_names(folder, data.dataset_config_name)
        if split not in there:
            raise Refused(f"{label} has no split {split}: it has {', '.join(there)}")
        table = load_dataset(folder, data.dataset_config_name, split=split)
    except Refused:
        raise
    except Exception as error:
        raise Refused(f"data set {label} cannot be loaded: {_one_line(error)}") from error
    return _checked(table, data, f"{label} ({split})", f"{Path(folder).name}/{table._fingerprint}")


def _fetched(name: str, revision: str | None) -> str:
    """The folder of a data set: `name` itself, or the snapshot of the hub's repository at `revision`."""
    from huggingface_hub import snapshot_download

    if Path(name).is_dir():
        return name
    try:
        return snapshot_download(name, repo_type="dataset", revision=revision)
    except Exception as error:
        where = f"{name} at {revision}" if revision else name
        raise Refused(f"data set {where} is not in reach: {_one_line(error)[:300]}") from error


def _checked(table: Dataset, data: config.Data, origin: str, fingerprint: str) -> Source:
    chosen = columns.choose(table.column_names, data.text_column_names, data.label_column_name, origin)
    for name in chosen.text:
        if getattr(table.features[name], "dtype", None) not in ("string", "large_string"):
            raise Refused(f"{origin}: column {name} is not text but {table.features[name]}")
        if table.data.column(name).null_count:
            raise Refused(f"{origin}: column {name} has rows without text")
    return Source(
        table.select_columns(list(chosen.all)), chosen, origin, _digest(fingerprint, chosen.text, chosen.label)
    )


def file_digest(path: str | Path) -> str:
    """sha256 of a file's content: a copied or touched file is still the same data."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
