"""Any source of rows -> a memory-mapped table of text and label, in the order of the source.

Local text files go through job.tables, which changes no value; parquet, saved data sets and the hub through `datasets`.
Rows stay on disk in every case, so memory does not grow with the data.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import hashlib
import itertools
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job import config
from job.data import columns, demo, hub, label_column, readers
from job.data.columns import Columns
from job.data.label_column import LabelColumn
from job.errors import Refused

if TYPE_CHECKING:
    from datasets import Dataset

EVALUATION = "validation"
TEST = "test"
VALIDATION_NAMES = ("validation", "dev", "valid", "val", "eval")
SAVED = ("dataset_dict.json", "state.json")
"""What `save_to_disk` leaves in a folder: the first for a DatasetDict, the second for a Dataset, taken for `train`."""


@dataclass(frozen=True)
class Source:
    """Rows of one split.

    Attributes:
        table: its columns are those that `columns` names.
        origin: what messages call it.
        labels: None without a label column.
        to_predict: whether it is a test set, where rows may lack text and all labels may be missing.
        locate: row (0-based) -> its file or split, and its number in it (1-based); None: `origin` is one of these.
    """

    table: Dataset
    columns: Columns
    origin: str
    fingerprint: str
    labels: LabelColumn | None = None
    to_predict: bool = False
    locate: Callable[[int], tuple[str, int]] | None = None

    def place(self, row: int) -> str:
        """What messages call a row (0-based)."""
        origin, number = self.locate(row) if self.locate else (self.origin, row + 1)
        return f"{origin}, row {number}"


@dataclass(frozen=True)
class DataSet:
    """What messages call a data set, the names of its splits, and how one of them is read."""

    label: str
    splits: tuple[str, ...]
    read: Callable[[str, bool], Source]
    """(name of the split, whether it is to be predicted) -> its rows."""


def read(data: config.Data, splits: tuple[str, ...]) -> dict[str, Source]:
    """The sources of `splits` ("train", "validation", "test"), in this order.

    Only "validation" may be missing from the answer: where no file is given, or the data set has no split of a usual
    name. Only "test" may be without a label, and have empty texts: each of its rows gets an answer.

    Raises:
        Refused: a file, data set, split or column that is not there or cannot be read, or a row without text.
    """
    if data.dataset_name:
        given = _data_set(data)
        names = {split: _split_name(data, split, given) for split in splits}
        return {split: given.read(name, split == TEST) for split, name in names.items() if name is not None}
    files = {"train": data.train_file, EVALUATION: data.validation_file, TEST: data.test_file}
    asked = [split for split in splits if files[split] or split != EVALUATION]
    return {split: _read_files(data, str(files[split]), split == TEST) for split in asked}


def _data_set(data: config.Data) -> DataSet:
    if data.dataset_name == "docstrings":
        return _docstrings(data)
    label = " ".join(filter(None, (data.dataset_name, data.dataset_config_name)))
    folder = _fetched(str(data.dataset_name), data.dataset_revision)
    saved = any(Path(folder, name).is_file() for name in SAVED)
    return _saved(data, Path(folder), label) if saved else _repository(data, folder, label)


def _split_name(data: config.Data, split: str, given: DataSet) -> str | None:
    name = {"train": data.train_split_name, EVALUATION: data.validation_split_name, TEST: data.test_split_name}[split]
    if name is None and split == EVALUATION:
        return _usual_validation(data, given)
    if name not in given.splits:
        raise Refused(f"{given.label} has no split {name}: it has {', '.join(given.splits)}")
    return name


def _usual_validation(data: config.Data, given: DataSet) -> str | None:
    """The split that is usually evaluated on; None if there is none.

    Raises:
        Refused: only splits that may be meant, as validation_matched: none of the training data must be cut off then.
    """
    free = [name for name in given.splits if name not in (data.train_split_name, data.test_split_name)]
    found = next((usual for usual in VALIDATION_NAMES if usual in free), None)
    alike = [name for name in free if name.startswith(VALIDATION_NAMES)]
    if found is None and alike:
        raise Refused(f"{given.label}: name the split to evaluate on with --validation_split_name: {', '.join(alike)}")
    return found


def _docstrings(data: config.Data) -> DataSet:
    import datasets

    files = demo.files(Path(datasets.config.HF_DATASETS_CACHE))

    def read_split(name: str, to_predict: bool) -> Source:
        read = _read_files(data, str(files[name]), to_predict)
        return dataclasses.replace(read, origin=f"docstrings ({name})", locate=None)

    return DataSet("docstrings", tuple(files), read_split)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def _read_files(data: config.Data, name: str, to_predict: bool) -> Source:
    """The rows of all files that `name` means, one file after the other."""
    paths = readers.files(name)
    chosen = readers.choose(paths, data.text_column_names, data.label_column_name, to_predict)
    # The names are left out, for moved files are the same data; not the formats, for the same bytes may mean others.
    fingerprint = _digest([[readers.kind(path), file_digest(path)] for path in paths], chosen.text, chosen.label)
    if readers.kind(paths[0]) == readers.PARQUET:
        table = _parquet(paths, chosen, name, to_predict)
        labels = label_column.from_table(table, chosen.label) if chosen.label else None
        locate = functools.partial(_row_of_parquet_file, paths)
    else:
        table = _generated(paths, chosen, fingerprint, to_predict)
        untyped = all(readers.kind(path) in readers.SEPARATORS for path in paths)
        labels = label_column.from_table(table, chosen.label, as_json=True, untyped=untyped) if chosen.label else None
        locate = functools.partial(_row_of_text_file, paths)
    return Source(table, chosen, name, fingerprint, labels, to_predict, locate)


def _generated(paths: Sequence[str], chosen: Columns, fingerprint: str, to_predict: bool) -> Dataset:
    """The files' rows as an Arrow table in the cache, written once and found again by the files' content."""
    from datasets import Dataset, Features, Value

    features = Features({name: Value("string") for name in chosen.all})
    if next(itertools.chain.from_iterable(readers.rows(path, chosen.all) for path in paths), None) is None:
        # which from_generator does not take
        return Dataset.from_dict({name: [] for name in chosen.all}, features=features)
    options = {"paths": tuple(paths), "chosen": chosen, "to_predict": to_predict}
    if to_predict:  # read by the looser rule, it is not to be found in the cache by one who would train on it
        fingerprint = _digest(fingerprint, TEST)
    try:
        return Dataset.from_generator(_texts_and_label, features=features, gen_kwargs=options, fingerprint=fingerprint)
    except Exception as error:  # the library wraps what a generator raises
        raise _refusal(error) from error


def _texts_and_label(paths: Sequence[str], chosen: Columns, to_predict: bool) -> Iterator[dict[str, str]]:
    for path in paths:
        for number, row in enumerate(readers.rows(path, chosen.all), 1):
            _refuse_no_text(path, number, {name: row[name] for name in chosen.text}, to_predict)
            if chosen.label is not None:
                row[chosen.label] = json.dumps(row[chosen.label], ensure_ascii=False)
                _refuse_half_characters(path, number, row[chosen.label])
            yield row


def _refuse_no_text(origin: str, number: int, texts: dict[str, Any], to_predict: bool) -> None:
    """Refuse a row where one of `texts` (column -> value) is not text or, except to be predicted, all are empty."""
    for name, text in texts.items():
        if not isinstance(text, str):
            shown = "null" if text is None else repr(text)[:80]
            raise Refused(f"{origin}, row {number}: {name} is not text but {shown}: take the row out or write text")
        if not text.isascii():
            _refuse_half_characters(origin, number, text)
    if not to_predict and not any(text.strip() for text in texts.values()):
        empty = f"{' and '.join(texts)} {'is' if len(texts) == 1 else 'are'} empty"
        raise Refused(f"{origin}, row {number}: {empty}: nothing can be learnt from it, take the row out")


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


def _parquet(paths: Sequence[str], chosen: Columns, origin: str, to_predict: bool) -> Dataset:
    from datasets import Dataset

    _refuse_other_classes(paths, chosen)
    try:
        # Escaped, because the library takes a name for a pattern.
        table = Dataset.from_parquet([glob.escape(str(Path(p).absolute())) for p in paths], columns=list(chosen.all))
    except Exception as error:
        raise Refused(f"{origin} cannot be read as parquet: {_one_line(error)}") from error
    return _with_text(table, chosen, origin, functools.partial(_row_of_parquet_file, paths), to_predict)


def _refuse_other_classes(paths: Sequence[str], chosen: Columns) -> None:
    """Class numbers of several files mean the same only where the names that the files give them are the same."""
    import pyarrow.parquet
    from datasets import Features

    def classes(path: str) -> Any:
        features = Features.from_arrow_schema(pyarrow.parquet.read_schema(path))
        return getattr(features[chosen.label], "names", None)

    if chosen.label is not None and len(paths) > 1:
        odd = next((path for path in paths[1:] if classes(path) != classes(paths[0])), None)
        if odd is not None:
            raise Refused(f"{odd}: column {chosen.label} has other class names than in {paths[0]}")


def _row_of_parquet_file(paths: Sequence[str], row: int) -> tuple[str, int]:
    """Row (0-based) of all files -> its file, and its number (1-based) in it."""
    import pyarrow.parquet

    return _row_of_file(paths, row, lambda path: pyarrow.parquet.read_metadata(path).num_rows)


def _row_of_text_file(paths: Sequence[str], row: int) -> tuple[str, int]:
    return _row_of_file(paths, row, lambda path: sum(1 for _ in readers.rows(path, ())))


def _row_of_file(paths: Sequence[str], row: int, count_rows: Callable[[str], int]) -> tuple[str, int]:
    for path in paths[:-1]:
        rows = count_rows(path)
        if row < rows:
            return path, row + 1
        row -= rows
    return paths[-1], row + 1


# ---------------------------------------------------------------------------------------------------------------------
# Data sets that were saved by `save_to_disk`


def _saved(data: config.Data, folder: Path, label: str) -> DataSet:
    if data.dataset_config_name:
        raise Refused(
            f"{data.dataset_name} was made by save_to_disk and has no configurations: leave out --dataset_config_name"
        )
    try:
        whole = (folder / SAVED[0]).is_file()
        splits = json.loads((folder / SAVED[0]).read_text(encoding="utf-8"))["splits"] if whole else ["train"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Refused(f"data set {label} cannot be loaded: its {SAVED[0]} is damaged") from error

    def read_split(name: str, to_predict: bool) -> Source:
        return _read_saved(data, folder / name if whole else folder, f"{label} ({name})", to_predict)

    return DataSet(label, tuple(splits), read_split)


def _read_saved(data: config.Data, folder: Path, origin: str, to_predict: bool) -> Source:
    from datasets import load_dataset, load_from_disk

    try:
        saved = load_from_disk(str(folder), keep_in_memory=False).with_format(None)
        files = [file["filename"] for file in saved.cache_files]
        fingerprint = _digest([file_digest(file) for file in files], str(saved.features))
        if len(saved):
            # Copied into the cache as other sources are: tokens are kept beside their table, and this folder is the
            # user's, may be read-only, and is another data set by its content if files are added.
            escaped = [glob.escape(str(Path(file).absolute())) for file in files]
            saved = load_dataset("arrow", data_files=escaped, features=saved.features, split="train")
    except Exception as error:
        raise _unloadable(origin, error) from error
    return _checked(saved, data, origin, fingerprint, to_predict)


# ---------------------------------------------------------------------------------------------------------------------
# Data sets of the hub, or folders laid out as one


def _repository(data: config.Data, folder: str, label: str) -> DataSet:
    from datasets import get_dataset_split_names

    try:
        there = get_dataset_split_names(folder, data.dataset_config_name)
    except Exception as error:
        raise _unloadable(label, error) from error
    return DataSet(label, tuple(map(str, there)), functools.partial(_read_split, data, folder, label))


def _read_split(data: config.Data, folder: str, label: str, split: str, to_predict: bool) -> Source:
    from datasets import load_dataset

    try:
        table = load_dataset(folder, data.dataset_config_name, split=split)
        content = _content(data, folder, split)
    except Exception as error:
        raise _unloadable(label, error) from error
    return _checked(table, data, f"{label} ({split})", _digest(content, str(table.features)), to_predict)


def _content(data: config.Data, folder: str, split: str) -> list[str | None]:
    """What identifies the rows of a split: the commit of a hub's snapshot, or the content of a folder's files.

    The library's own fingerprint holds paths and times, and changes with a copy.
    """
    from datasets import load_dataset_builder

    if folder != data.dataset_name:
        return [Path(folder).name, data.dataset_config_name, split]
    files = load_dataset_builder(folder, data.dataset_config_name).config.data_files[split]
    return [file_digest(file) if Path(file).is_file() else str(file) for file in files]  # else: a file on the hub


def _unloadable(label: str, error: BaseException) -> Refused:
    what = (
        "it is Python code, which is not run: convert it to parquet"
        if "Dataset scripts" in str(error)
        else _one_line(error)
    )
    return Refused(f"data set {label} cannot be loaded: {what}")


def _fetched(name: str, revision: str | None) -> str:
    """The folder of a data set: `name` itself, or the snapshot of the hub's repository at `revision`.

    `load_dataset` by name would, offline or when the hub does not answer, take whatever revision was prepared last,
    with no more than a warning.
    """
    from huggingface_hub import snapshot_download

    if Path(name).is_dir():
        return name
    try:
        hub.commit(name, revision, "dataset")  # raises where the download would fall back on an older copy
        return snapshot_download(name, repo_type="dataset", revision=revision)
    except Exception as error:
        where = f"{name} at {revision}" if revision else name
        raise Refused(f"data set {where} is not in reach: {_one_line(error)}") from error


# ---------------------------------------------------------------------------------------------------------------------
# Checks that all tables share


def _checked(table: Dataset, data: config.Data, origin: str, fingerprint: str, to_predict: bool) -> Source:
    chosen = columns.choose(table.column_names, data.text_column_names, data.label_column_name, origin, to_predict)
    table = table.select_columns(list(chosen.all))
    table = _with_text(table, chosen, origin, lambda row: (origin, row + 1), to_predict)
    labels = label_column.from_table(table, chosen.label) if chosen.label else None
    return Source(table, chosen, origin, _digest(fingerprint, chosen.text, chosen.label), labels, to_predict)


def _with_text(
    table: Dataset, chosen: Columns, origin: str, place: Callable[[int], tuple[str, int]], to_predict: bool
) -> Dataset:
    """`table`, if all its rows have text; `place` gives the file and the number in it of a row that has none."""
    for name in chosen.text:
        if getattr(table.features[name], "dtype", None) not in ("string", "large_string"):
            raise Refused(f"{origin}: column {name} is not text but {table.features[name]}")
    found = _first_without_text(table.data.table.select(list(chosen.text)).to_batches(), to_predict)
    if found is not None:
        _refuse_no_text(*place(found), table.select_columns(list(chosen.text))[found], to_predict)
    return table


def _first_without_text(batches: Iterable[Any], to_predict: bool) -> int | None:
    """Number of the first row where a column is null or, unless it is to be predicted, all columns are blank.

    `batches` are pyarrow's.
    """
    import pyarrow.compute as pc

    start = 0
    for batch in batches:
        missing = functools.reduce(pc.or_, map(pc.is_null, batch.columns))
        blank = functools.reduce(pc.and_, (pc.equal(pc.utf8_trim_whitespace(text), "") for text in batch.columns))
        at = pc.index(missing if to_predict else pc.or_(missing, pc.fill_null(blank, True)), True).as_py()
        if at >= 0:
            return start + at
        start += len(batch)
    return None


def file_digest(path: str | Path) -> str:
    """sha256 of a file's content: a copied or touched file is still the same data."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _one_line(error: BaseException) -> str:
    """What an error says, in so many words; a library's wrapper around another error says nothing."""
    said = error.__cause__ if type(error).__name__ == "DatasetGenerationError" and error.__cause__ else error
    return textwrap.shorten(str(said), 200, placeholder=" ...") or type(said).__name__
