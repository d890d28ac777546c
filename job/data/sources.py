"""Any source of rows -> a memory-mapped table of text and label, in the order of the source.

Text files, including those in a dataset folder, are read by job/data/readers.py, which changes no value. Parquet, saved
datasets and other hub files are read by `datasets`. Rows always stay on disk, so memory does not grow with the data.
"""

from __future__ import annotations

import dataclasses
import functools
import glob
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job import config
from job.data import columns, demo, folders, hub, parquet_tables, readers, tables_cache, text_tables, texts
from job.data.columns import Columns, Request
from job.data.inputs import Inputs, ParquetInputs, TableInputs, TextInputs
from job.data.labels import column as label_column
from job.data.labels.column import LabelColumn
from job.data.library_errors import loading_errors, one_line
from job.data.text_tables import TextFiles
from job.errors import Refused
from job.runtime import files as runtime_files

if TYPE_CHECKING:
    from datasets import Dataset

EVALUATION = "validation"
TEST = "test"
_CONFIGURATIONS = re.compile(
    r"(Config name is missing|BuilderConfig '.*' not found)[^\[]*\[(?P<names>[^\]]*)\]", re.DOTALL
)
"""The library's error for a dataset of several configurations without the name of one, or with a wrong name."""
VALIDATION_NAMES = ("validation", "dev", "valid", "val", "eval")


@dataclass(frozen=True)
class Source:
    """Rows of one split.

    Attributes:
        table: has the columns in `columns`.
        origin: how messages refer to the source.
        labels: None without a label column.
        to_predict: whether it is a test set, where rows may have no text and labels may be missing.
        inputs: all columns of a test set.
        place_of: row (0-based) -> how messages refer to it, if not by its number in `origin`.
        remarks: how the files were read, for the `data` line of the log.
        notes: properties that a user may not expect.
    """

    table: Dataset
    columns: Columns
    origin: str
    fingerprint: str
    labels: LabelColumn | None = None
    to_predict: bool = False
    inputs: Inputs | None = None
    place_of: Callable[[int], str] | None = None
    remarks: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def place(self, row: int) -> str:
        """How messages refer to a row (0-based)."""
        return self.place_of(row) if self.place_of else f"{self.origin}, row {row + 1}"


@dataclass(frozen=True)
class SplitReader:
    """Reads the splits of a dataset, or of given files.

    Attributes:
        label: how messages refer to the dataset.
        splits: the names of its splits.
    """

    label: str
    splits: tuple[str, ...]
    read: Callable[[str, Wanted], Source]
    """(name of the split, what to read) -> its rows."""


@dataclass(frozen=True)
class Wanted:
    """What to read of a split, and how."""

    columns: Request
    to_predict: bool
    quoting: readers.Quoting


def read(data: config.Data, splits: tuple[str, ...]) -> dict[str, Source]:
    """The sources of `splits` ("train", "validation", "test"), in this order.

    "validation" is missing from the result if no file is given or the dataset has no split with a usual name. Only
    "test" may have no label and empty texts: each of its rows is predicted. All splits use the columns of the first.

    Raises:
        Refused: a file, dataset, split or column is missing or cannot be read, or a row has no text.
    """
    given = _dataset(data) if data.dataset_name else _given_files(data)
    names = {split: _split_name(data, split, given) if data.dataset_name else split for split in splits}
    sources: dict[str, Source] = {}
    for split, name in names.items():
        if name in given.splits:
            trained = sources["train"].columns if "train" in sources else None
            wanted = Wanted(columns.request(data, split, trained), split == TEST, data.csv_quoting)
            sources[split] = given.read(str(name), wanted)
    return sources


def fetch(data: config.Data, splits: tuple[str, ...]) -> None:
    """Download the dataset of --dataset_name and check that it has `splits`; reads no rows. Raises as `read` does."""
    given = _dataset(data)
    for split in splits:
        _split_name(data, split, given)


def _dataset(data: config.Data) -> SplitReader:
    if data.dataset_name == config.BUILT_IN_DATASET:
        return _docstrings(data)
    label = " ".join(filter(None, (data.dataset_name, data.dataset_config_name)))
    folder = _fetched(str(data.dataset_name), data.dataset_revision)
    return _saved(data, Path(folder), label) if folders.is_saved(Path(folder)) else _repository(data, folder, label)


def _split_name(data: config.Data, split: str, given: SplitReader) -> str | None:
    name = {"train": data.train_split_name, EVALUATION: data.validation_split_name, TEST: data.test_split_name}[split]
    if name is None and split == EVALUATION:
        return _usual_validation(data, given)
    if name not in given.splits:
        raise Refused(f"{given.label} has no split {name}; its splits: {', '.join(given.splits)}")
    return name


def _usual_validation(data: config.Data, given: SplitReader) -> str | None:
    """The split with a usual validation name; None if there is none.

    Raises:
        Refused: there are only similar names, such as validation_matched: the user must choose, rather than have an
            evaluation set split off from the training data.
    """
    free = [name for name in given.splits if name not in (data.train_split_name, data.test_split_name)]
    found = next((usual for usual in VALIDATION_NAMES if usual in free), None)
    alike = [name for name in free if name.lower().startswith(VALIDATION_NAMES)]
    if found is None and alike:
        raise Refused(f"{given.label}: choose the evaluation split with --validation_split_name: {', '.join(alike)}")
    return found


def _docstrings(data: config.Data) -> SplitReader:
    import datasets

    files = demo.files(Path(datasets.config.HF_DATASETS_CACHE))

    def read_split(name: str, wanted: Wanted) -> Source:
        read = _read_files([str(files[name])], wanted, f"{config.BUILT_IN_DATASET} ({name})")
        return dataclasses.replace(read, place_of=None)

    return SplitReader(config.BUILT_IN_DATASET, tuple(files), read_split)


# ---------------------------------------------------------------------------------------------------------------------
# Files


def _given_files(data: config.Data) -> SplitReader:
    """The files of --train_file, --validation_file and --test_file."""
    given = {"train": data.train_file, EVALUATION: data.validation_file, TEST: data.test_file}
    names = {split: name for split, name in given.items() if name}
    return SplitReader("files", tuple(names), lambda split, wanted: _read_pattern(names[split], wanted))


def _read_pattern(name: str, wanted: Wanted) -> Source:
    return _read_files(readers.files(name), wanted, name)


def _read_files(paths: Sequence[str], wanted: Wanted, origin: str, declared: Any = None) -> Source:
    """The rows of all files, one file after the other; `declared` are the features that their dataset declares."""
    chosen = readers.choose(paths, wanted.columns, wanted.quoting)
    notes = columns.notes(readers.columns(paths[0], wanted.quoting), wanted.columns, chosen, origin)
    # Not the file names, because moved files are the same data; but the formats, which decide how bytes are read.
    digests = tuple(runtime_files.sha256(Path(path)) for path in paths)
    content = [[readers.kind(path), digest] for path, digest in zip(paths, digests, strict=True)]
    if readers.kind(paths[0]) == readers.PARQUET:
        table = parquet_tables.read(paths, digests, chosen, origin)
        fingerprint = _digest(content, chosen.text, chosen.label)
        source = _checked(table, chosen, origin, fingerprint, wanted, functools.partial(parquet_tables.place, paths))
        inputs: Inputs = ParquetInputs(tuple(paths), digests)
        return dataclasses.replace(source, notes=tuple(notes), inputs=inputs)
    types = None if declared is None or chosen.label is None else str(declared.get(chosen.label))
    fingerprint = _digest(content, chosen.text, chosen.label, readers.VERSION, wanted.quoting, types)
    files = TextFiles(tuple(paths), wanted.columns, chosen, wanted.to_predict, wanted.quoting)
    table = text_tables.read(files, fingerprint)
    labels = None
    if chosen.label is not None:
        labels = label_column.from_table(table, chosen.label, as_json=True, untyped=files.are_untyped)
        labels = label_column.as_declared(labels, (declared or {}).get(chosen.label))
    remarks, table = tuple(text_tables.remarks(table, files)), table.select_columns(list(chosen.all))
    inputs = TextInputs(tuple(paths), digests, wanted.quoting)
    return Source(
        table, chosen, origin, fingerprint, labels, wanted.to_predict, inputs, files.place, remarks, tuple(notes)
    )


# ---------------------------------------------------------------------------------------------------------------------
# Datasets written by `save_to_disk`


def _saved(data: config.Data, folder: Path, label: str) -> SplitReader:
    if data.dataset_config_name:
        raise Refused(
            f"{data.dataset_name} was written by save_to_disk and has no configurations: remove --dataset_config_name"
        )
    try:
        whole = (folder / folders.SAVED[0]).is_file()
        splits = json.loads((folder / folders.SAVED[0]).read_text(encoding="utf-8"))["splits"] if whole else ["train"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Refused(f"dataset {label} cannot be loaded: its {folders.SAVED[0]} is damaged") from error

    def read_split(name: str, wanted: Wanted) -> Source:
        return _read_saved(folder / name if whole else folder, f"{label} ({name})", wanted)

    return SplitReader(label, tuple(splits), read_split)


def _read_saved(folder: Path, origin: str, wanted: Wanted) -> Source:
    from datasets import load_dataset, load_from_disk

    try:
        has_rows = bool(json.loads((folder / folders.SAVED[1]).read_text(encoding="utf-8"))["_data_files"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise Refused(
            f"dataset {origin} cannot be loaded: its {folders.SAVED[1]} is missing or damaged: save it again"
        ) from error
    if not has_rows:  # the library cannot load it
        raise Refused(f"{origin} has no rows: choose another split, or save one with rows")
    try:
        saved = load_from_disk(str(folder), keep_in_memory=False).with_format(None)
        files = [file["filename"] for file in saved.cache_files]
        digests = [runtime_files.sha256(Path(file)) for file in files]
        if len(saved):
            # Copied into the cache like other sources: tokens are stored next to their table, but this folder belongs
            # to the user, may be read-only, and is a different dataset if files are added.
            escaped = [glob.escape(str(Path(file).absolute())) for file in files]
            cache = tables_cache.folder(digests)
            saved = load_dataset("arrow", data_files=escaped, features=saved.features, split="train", cache_dir=cache)
    except loading_errors() as error:
        raise _unloadable(origin, error) from error
    return _from_table(saved, origin, _digest(digests, str(saved.features)), wanted)


# ---------------------------------------------------------------------------------------------------------------------
# Datasets on the hub, and folders with the same layout


def _repository(data: config.Data, folder: str, label: str) -> SplitReader:
    from datasets import get_dataset_split_names

    folders.refuse_pattern(Path(folder))
    try:
        there = get_dataset_split_names(folder, data.dataset_config_name)
    except loading_errors() as error:
        raise _unloadable(label, error) from error
    digest_of = functools.cache(_digest_of)
    return SplitReader(label, tuple(map(str, there)), functools.partial(_read_split, data, folder, label, digest_of))


def _read_split(
    data: config.Data, folder: str, label: str, digest_of: Callable[[str], str], split: str, wanted: Wanted
) -> Source:
    from datasets import load_dataset, load_dataset_builder

    origin = f"{label} ({split})"
    try:
        builder = load_dataset_builder(folder, data.dataset_config_name)
        files = {name: list(map(str, names)) for name, names in (builder.config.data_files or {}).items()}
        own = _own_options(builder.config, files.get(split, ()))
        declared = builder.config.features or builder.info.features
        if not own and _are_readable(files.get(split, ()), declared):
            return _read_files(files[split], wanted, origin, declared)
        # Keep the text NA in a csv with custom options, which the library reads.
        options = {"keep_default_na": False} if hasattr(builder.config, "keep_default_na") else {}
        # The library makes tables of all splits.
        cache = tables_cache.folder([digest_of(name) for names in files.values() for name in names])
        table = load_dataset(folder, data.dataset_config_name, split=split, cache_dir=cache, **options)
        content = [digest_of(name) for name in files.get(split, ())]
    except loading_errors() as error:
        raise _unloadable(label, error) from error
    return _from_table(table, origin, _digest(content, own, str(table.features)), wanted)


def _are_readable(files: Sequence[str], declared: Any) -> bool:
    """Whether our readers can read these files, if their dataset has no options of its own: local files, of text
    formats or, without `declared` features, parquet. The library would cast all parquet files to the first one's types.
    """
    formats = readers.TEXT_FILES if declared else (*readers.TEXT_FILES, readers.PARQUET)
    return bool(files) and all(file.lower().endswith(formats) and Path(file).is_file() for file in files)


def _own_options(builder_config: Any, files: Sequence[str]) -> dict[str, str]:
    """The options by which a dataset's card changes how these files are read."""
    usual = type(builder_config)()
    if files and all(file.lower().endswith((".tsv", ".tsv.gz")) for file in files):
        usual.sep = "\t"
    names = {field.name for field in dataclasses.fields(builder_config)}
    names -= {"name", "version", "data_dir", "data_files", "description", "features"}
    given = {name: getattr(builder_config, name) for name in names}
    return {name: repr(value) for name, value in given.items() if value != getattr(usual, name)}


def _digest_of(file: str) -> str:
    """Identifies the content of a file of a dataset, or of a file in an archive ("zip://name::archive").

    A name that is not that of a local file is a file on the hub.
    """
    inside, _, path = file.rpartition("::")
    return inside + runtime_files.sha256(Path(path)) if Path(path).is_file() else file


def _unloadable(label: str, error: BaseException) -> Refused:
    what = one_line(error)
    if "Dataset scripts" in str(error):
        what = "it is a Python script, which is not run: convert it to parquet"
    elif found := _CONFIGURATIONS.match(str(error)):
        what = f"choose its configuration with --dataset_config_name: {found['names'].replace(chr(39), '')}"
    return Refused(f"dataset {label} cannot be loaded: {what}")


def _fetched(name: str, revision: str | None) -> str:
    """The folder of a dataset: `name` itself, or the snapshot of the hub repository at `revision`.

    `load_dataset` by name would, offline or if the hub does not answer, use the revision that was prepared last, with
    only a warning.
    """
    from huggingface_hub import snapshot_download

    if Path(name).is_dir():
        return name
    try:
        hub.commit(name, revision, "dataset")  # raises if the download would fall back on an older copy
        return snapshot_download(name, repo_type="dataset", revision=revision)
    except loading_errors() as error:
        where = f"{name} at {revision}" if revision else name
        raise Refused(f"dataset {where} not found or not reachable: {one_line(error)}") from error


# ---------------------------------------------------------------------------------------------------------------------
# Tables from any source


def _from_table(table: Dataset, origin: str, fingerprint: str, wanted: Wanted) -> Source:
    chosen = columns.choose(table.column_names, wanted.columns, origin)
    notes = columns.notes(table.column_names, wanted.columns, chosen, origin)
    fingerprint = _digest(fingerprint, chosen.text, chosen.label)
    source = _checked(table.select_columns(list(chosen.all)), chosen, origin, fingerprint, wanted)
    return dataclasses.replace(source, notes=tuple(notes), inputs=TableInputs(table))


def _checked(
    table: Dataset,
    chosen: Columns,
    origin: str,
    fingerprint: str,
    wanted: Wanted,
    place_of: Callable[[int], str] | None = None,
) -> Source:
    """A source made of a typed table, after checking its texts."""
    table = texts.nulls_as_text(table, chosen.text)
    labels = label_column.from_table(table, chosen.label) if chosen.label else None
    source = Source(table, chosen, origin, fingerprint, labels, wanted.to_predict, place_of=place_of)
    texts.check_table(table, chosen.text, origin, source.place, wanted.to_predict)
    return source


def _digest(*parts: Any) -> str:
    return runtime_files.digest(parts)[:32]
