"""Rows of csv, tsv, jsonl and json files, plain or gzipped, exactly as they are in the file.

The usual readers guess types by column or block: a text column of digits becomes numbers (007 -> 7), "NA" becomes null,
dates become timestamps. Here a csv or tsv cell is the text between its separators, and a json value has its JSON type.
Standard library only, so that a login node checks a file with the same reader; only parquet columns need pyarrow.

Quotation marks in tab-separated files are ambiguous: in some files they quote a cell, as in csv, in others they are
ordinary characters. They are read as quotes, unless that would join lines that look like rows: such a file is rejected
until --csv_quoting decides.
"""

from __future__ import annotations

import contextlib
import csv
import fnmatch
import gzip
import json
import stat
import textwrap
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import IO, Any, Literal

from job.data import columns as column_choice
from job.data.columns import Columns, Request
from job.errors import Refused
from job.runtime.files import is_pattern

VERSION = 2
"""Increased when files are read differently than before, so that cached tables are not reused."""
SEPARATORS = {".csv": ",", ".tsv": "\t"}
TEXT = (*SEPARATORS, ".jsonl", ".json")
PARQUET = ".parquet"
TEXT_FILES = (*TEXT, *(f"{ending}.gz" for ending in TEXT))
FORMATS = (*TEXT, PARQUET, *(f"{ending}.gz" for ending in TEXT))
Quoting = Literal["minimal", "none"] | None
"""--csv_quoting. minimal: quotation marks quote a cell; none: they are ordinary characters; None: not decided."""


@dataclass(frozen=True)
class Row:
    """A row of a text file.

    Attributes:
        where: how messages refer to it: "line 3" or "row 3".
        values: by column; csv and tsv values are str, others have their JSON type.
        spanning: number of cells that span several lines.
        quoted: whether quotation marks around a tsv cell were read as quoting without --csv_quoting.
    """

    where: str
    values: dict[str, Any]
    spanning: int = 0
    quoted: bool = False


def kind(path: str | Path) -> str:
    """The format by the file's name, whether gzipped or not: ".csv" of a.csv and a.CSV.gz."""
    name = Path(path).name.lower()
    ending = next((ending for ending in FORMATS if name.endswith(ending)), None)
    if ending is None:
        raise Refused(f"{path}: the name must end in {', '.join(FORMATS)}")
    return ending.removesuffix(".gz")


def files(name: str) -> list[str]:
    """The file `name`, or all files that match it as a pattern (*, ?, [...], **), sorted by name.

    Raises:
        Refused: no file matches, a format is unknown, or parquet is mixed with text formats.
    """
    paths = _matching(name)
    kinds = {kind(path) for path in paths}
    if PARQUET in kinds and len(kinds) > 1:
        raise Refused(f"{name} matches parquet and other files ({', '.join(sorted(kinds))}): use one or the other")
    return paths


def _matching(name: str) -> list[str]:
    path = Path(name)
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise Refused(f"{name} is a folder: give a file in it, or use --dataset_name for a dataset folder")
        return [name]
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise Refused(f"{name} cannot be read: {error.strerror}") from None
    if not is_pattern(name):
        raise Refused(f"file not found: {name}{'' if path.is_absolute() else f' in {Path.cwd()}'}")
    # A set, because a pattern with ** twice finds a file several times.
    found = set(glob(name, recursive=True))  # noqa: PTH207
    paths = sorted(match for match in found if not Path(match).is_dir())
    if not paths:
        raise Refused(f"no file matches {name}{'' if path.is_absolute() else f' in {Path.cwd()}'}")
    return paths


def matches(path: str, name: str) -> bool:
    """Whether `path` is, or would be if it existed, one of the files of `name`, a file or a pattern."""
    if not is_pattern(name):
        return Path(path).resolve() == Path(name).resolve()
    depth_fits = "**" in name or path.count("/") == str(Path(name).absolute()).count("/")
    return depth_fits and fnmatch.fnmatchcase(path, str(Path(name).absolute()))


def choose(paths: Sequence[str], asked: Request, quoting: Quoting = None) -> Columns:
    """The columns to use of every file: those chosen in the first file, which the others must have too.

    Raises:
        Refused: a file does not have them, or has columns that would change the choice.
    """
    first = column_choice.choose(columns(paths[0], quoting), asked, paths[0])
    same = Request(first.text, first.label, label_required=True, has_label=first.label is not None)
    for path in paths[1:]:
        there = columns(path, quoting)
        column_choice.choose(there, same, path)
        column_choice.refuse_other_choice(there, asked, first, path, paths[0])
    return first


def columns(path: str | Path, quoting: Quoting = None) -> list[str]:
    """Column names of a file: its header, the keys of its first row, or its schema."""
    if kind(path) == PARQUET:
        return _parquet_columns(path)
    if kind(path) in SEPARATORS:
        with _opened(path, newline="") as file:
            return _Records(path, file, quoting).header
    first = next(_json_rows(path), None)
    content = "an array of JSON objects" if kind(path) == ".json" else "one JSON object per line"
    return list(first.values) if first else _refuse_empty(path, f"it must contain {content}")


def rows(path: str | Path, names: Sequence[str] = (), quoting: Quoting = None) -> Iterator[Row]:
    """The rows of a text file, in order.

    Args:
        names: columns that each row must have; others may be missing. A key that a JSON row does not have is null.

    Raises:
        Refused: a row lacks one of these columns or cannot be read; the message names its line.
    """
    if kind(path) not in SEPARATORS:
        yield from _json_rows(path)
        return
    for row in _csv_rows(path, quoting):
        missing = [name for name in names if name not in row.values]
        if missing:
            raise Refused(f"{path}, {row.where}: no value for {missing[0]}: add it or remove the row")
        yield row


def _refuse_empty(path: str | Path, what: str) -> list[str]:
    raise Refused(f"{path} is empty: {what}")


def _parquet_columns(path: str | Path) -> list[str]:
    import pyarrow
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except (OSError, pyarrow.ArrowException) as error:
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise Refused(f"{path} cannot be read as parquet: {reason}") from None


# ---------------------------------------------------------------------------------------------------------------------
# csv and tsv


def _csv_rows(path: str | Path, quoting: Quoting) -> Iterator[Row]:
    with _opened(path, newline="") as file:
        yield from _Records(path, file, quoting)


class _Records:
    """The header and the rows of an open csv or tsv file."""

    def __init__(self, path: str | Path, file: IO[str], quoting: Quoting) -> None:
        csv.field_size_limit(2**31 - 1)
        self._path, self._quoting = path, quoting
        self._is_tsv = kind(path) == ".tsv"
        self._undecided = self._is_tsv and quoting is None
        self._lines: list[str] = []  # of the current record; kept only if quotation marks are ambiguous
        self._reader = csv.reader(
            self._kept(file) if self._undecided else file,
            delimiter=SEPARATORS[kind(path)],
            quoting=csv.QUOTE_NONE if quoting == "none" else csv.QUOTE_MINIMAL,
            strict=True,
        )
        self.header = next(self._cells(), [])
        if not self.header:
            _refuse_empty(path, "its first line must name the columns")

    def __iter__(self) -> Iterator[Row]:
        start = self._reader.line_num
        self._lines.clear()
        for cells in self._cells():
            cells = cells or ([""] if len(self.header) == 1 else [])  # a blank line is a row of one empty cell
            first, start = start + 1, self._reader.line_num
            if cells:
                yield self._row(cells, first, start)
            self._lines.clear()

    def _row(self, cells: list[str], first: int, last: int) -> Row:
        where = f"line {last}"
        if len(cells) > len(self.header):
            separator = "tab" if self._is_tsv else "comma"
            raise Refused(f"{self._path}, {where}: {len(cells)} values for {len(self.header)} columns: put text that "
                          f"contains a {separator} in double quotes")  # fmt: skip
        if [cells[0].removeprefix("\ufeff"), *cells[1:]] == self.header:
            raise Refused(f"{self._path}, {where}: the header is repeated: remove this line")
        spanning = sum("\n" in cell or "\r" in cell for cell in cells) if last > first else 0
        if spanning and self._undecided:
            self._refuse_joined_rows(cells, first, last)
        text = "".join(self._lines)
        quoted = text.startswith('"') or '\t"' in text
        return Row(where, dict(zip(self.header, cells, strict=False)), spanning, quoted)

    def _refuse_joined_rows(self, cells: list[str], first: int, last: int) -> None:
        """Refused if a quoted cell of several lines may be several rows."""
        joined = any("\t" in cell for cell in cells if "\n" in cell or "\r" in cell)
        if joined or len(self.header) == 1:
            raise Refused(f"{self._path}, line {first}: a double quote joins lines {first} to {last} into one cell: "
                          "add --csv_quoting none if quotation marks are ordinary characters in this file, or "
                          "--csv_quoting minimal if this is one cell")  # fmt: skip

    def _cells(self) -> Iterator[list[str]]:
        try:
            yield from self._reader
        except csv.Error as error:
            what = "a double quote is never closed" if "unexpected end" in str(error) else error
            raise Refused(f"{self._path}, line {self._reader.line_num}: {what}{self._remedy()}") from None

    def _remedy(self) -> str:
        if self._quoting is not None:
            return ""
        return ": add --csv_quoting none if quotation marks are ordinary characters in this file"

    def _kept(self, file: Iterable[str]) -> Iterator[str]:
        for line in file:
            self._lines.append(line)
            yield line


# ---------------------------------------------------------------------------------------------------------------------
# json and jsonl


def _json_rows(path: str | Path) -> Iterator[Row]:
    """One object per line or, in .json files, an array of objects."""
    with _opened(path) as file:
        lines = ((number, text) for number, text in enumerate(file, 1) if text.strip())
        for count, (number, text) in enumerate(lines):
            if count == 0 and kind(path) == ".json" and text.lstrip().startswith("["):
                yield from _json_array(path, number, text + file.read())
                return
            try:
                value = _parsed(path, number, text)
            except _RepeatedKeyError as error:
                raise _repeated_key(path, f"line {number}", error) from None
            yield _json_row(path, f"line {number}", value)


def _json_array(path: str | Path, line: int, text: str) -> Iterator[Row]:
    """The objects of an array that starts in this line. The whole array is in memory, unlike JSON lines."""
    try:
        values = _parsed(path, line, text)
    except _RepeatedKeyError as error:
        raise _repeated_key(path, f"row {_row_of_repeated_key(text)}", error) from None
    for number, value in enumerate(values, 1):
        yield _json_row(path, f"row {number}", value)


class _RepeatedKeyError(Exception):
    """A JSON object has a key twice; json.loads would silently use the last value."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedKeyError(next(name for name in names if names.count(name) > 1))
    return values


def _row_of_repeated_key(text: str) -> int:
    """The row (from 1) of a JSON array that has an object with a repeated key."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    at, row = text.index("[") + 1, 0
    while True:
        row += 1
        while text[at].isspace() or text[at] == ",":
            at += 1
        try:
            _, at = decoder.raw_decode(text, at)
        except _RepeatedKeyError:
            return row


def _repeated_key(path: str | Path, where: str, error: _RepeatedKeyError) -> Refused:
    return Refused(f"{path}, {where}: the key {str(error)!r} occurs twice in an object: remove one")


def _parsed(path: str | Path, line: int, text: str) -> Any:
    try:
        return json.loads(text.rstrip(), object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise Refused(f"{path}, line {line + error.lineno - 1} is not JSON: {error.msg}") from None
    except (ValueError, RecursionError):
        raise Refused(
            f"{path}, line {line}: the JSON is nested too deeply or has a number with too many digits"
        ) from None


def _json_row(path: str | Path, where: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise Refused(f"{path}, {where}: not a JSON object")
    return Row(where, value)


# ---------------------------------------------------------------------------------------------------------------------
# Bytes


@contextlib.contextmanager
def _opened(path: str | Path, newline: str | None = None) -> Iterator[IO[str]]:
    """The text of a file; errors while reading it become Refused."""
    try:
        with _unzipped(path, "rt", encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Refused(f"{path} is not a valid gzip file or is truncated: {error}") from None
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from None


def _unzipped(path: str | Path, mode: str, **how: Any) -> Any:
    return gzip.open(path, mode, **how) if Path(path).suffix.lower() == ".gz" else open(path, mode, **how)


def not_utf8(path: str | Path, error: UnicodeDecodeError) -> Refused:
    """The rejection of a file that is not UTF-8, with the line and the first invalid byte."""
    number, byte = 1, 0
    with _unzipped(path, "rb") as file:
        for number, raw in enumerate(file, 1):  # noqa: B007
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as invalid:
                byte = raw[invalid.start]
                break
    return Refused(f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8: save the file as UTF-8 ({error.reason})")
