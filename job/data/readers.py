"""Rows of csv, tsv, jsonl and json files, plain or gzipped, exactly as they stand in the file.

The usual readers guess types by column or block: a text column of digits becomes numbers (007 -> 7), "NA" becomes
nothing, dates become timestamps. Here a csv or tsv cell is the text between its separators, and a json value what JSON
says it is. A tsv file is quoted as csv is, so that its text may hold tabs and line ends; the other convention, where a
quote is a letter like any other, is refused where it shows rather than guessed. Standard library only, so that a login
node checks a file with the same reader; but for the columns of parquet, which need pyarrow.
"""

from __future__ import annotations

import contextlib
import csv
import glob
import gzip
import json
import stat
import textwrap
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from job.data.columns import Columns
from job.data.columns import choose as choose_columns
from job.errors import Refused
from job.runtime.files import is_pattern

SEPARATORS = {".csv": ",", ".tsv": "\t"}
TEXT = (*SEPARATORS, ".jsonl", ".json")
PARQUET = ".parquet"
FORMATS = (*TEXT, PARQUET, *(f"{ending}.gz" for ending in TEXT))
BLANK = " \t\n\r"
DECODER = json.JSONDecoder()


def kind(path: str | Path) -> str:
    """The format by the file's name, whether gzipped or not: ".csv" of a.csv and a.CSV.gz."""
    name = Path(path).name.lower()
    ending = next((ending for ending in FORMATS if name.endswith(ending)), None)
    if ending is None:
        raise Refused(f"{path}: the name must end in {', '.join(FORMATS)}")
    return ending.removesuffix(".gz")


def files(name: str) -> list[str]:
    """The files that `name` means: itself, or all that match it as a pattern (*, ?, [...], **), sorted by name.

    Raises:
        Refused: there are none, one is in no known format, or text formats and parquet are mixed.
    """
    found = _matching(name)
    kinds = {kind(path) for path in found}
    if PARQUET in kinds and len(kinds) > 1:
        raise Refused(f"{name} matches parquet and other files ({', '.join(sorted(kinds))}): match one or the other")
    return found


def _matching(name: str) -> list[str]:
    path = Path(name)
    try:
        if stat.S_ISDIR(path.stat().st_mode):
            raise Refused(f"{name} is a folder: name a file in it, or give a data set's folder as --dataset_name")
        return [name]
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise Refused(f"{name} cannot be read: {error.strerror}") from None
    if not is_pattern(name):
        raise Refused(f"no file {name}{'' if path.is_absolute() else f' in {Path.cwd()}'}")
    found = sorted(match for match in glob.glob(name, recursive=True) if not Path(match).is_dir())  # noqa: PTH207
    if not found:
        raise Refused(f"no file matches {name}{'' if path.is_absolute() else f' in {Path.cwd()}'}")
    return found


def choose(paths: Sequence[str], text: Sequence[str], label: str | None, label_optional: bool = False) -> Columns:
    """The columns to use of every file: those chosen in the first, which the others must have too (see columns)."""
    first = choose_columns(columns(paths[0]), text, label, paths[0], label_optional)
    for path in paths[1:]:
        choose_columns(columns(path), first.text, first.label, path, label_optional)
    return first


def columns(path: str | Path) -> list[str]:
    """Names of the columns of a file: its header, the keys of its first row, or its schema."""
    if kind(path) == PARQUET:
        return _parquet_columns(path)
    if kind(path) in SEPARATORS:
        return next(_csv_lines(path), (0, list[str]()))[1] or _refuse_empty(
            path, "its first line must name the columns"
        )
    first = next(_json(path), None)
    each = "an array of JSON objects" if kind(path) == ".json" else "one JSON object a line"
    return list(first[1]) if first else _refuse_empty(path, f"it must hold {each}")


def rows(path: str | Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The columns `names` of each row of a text file, in order; csv and tsv values are str, others what JSON holds.

    Raises:
        Refused: a row that does not have these columns or cannot be read, by its line.
    """
    table = _csv(path) if kind(path) in SEPARATORS else _json(path)
    for line, row in table:
        missing = [name for name in names if name not in row]
        if missing:
            raise Refused(f"{path}, line {line}: no value for {missing[0]}")
        yield {name: row[name] for name in names}


def _refuse_empty(path: str | Path, what: str) -> list[str]:
    raise Refused(f"{path} is empty: {what}")


def _parquet_columns(path: str | Path) -> list[str]:
    import pyarrow.parquet

    try:
        return list(pyarrow.parquet.read_schema(path).names)
    except Exception as error:  # an OSError or one of pyarrow's own, by where the file is broken
        reason = textwrap.shorten(str(error), 200, placeholder=" ...")
        raise Refused(f"{path} cannot be read as parquet: {reason}") from None


# ---------------------------------------------------------------------------------------------------------------------
# Text formats


def _csv(path: str | Path) -> Iterator[tuple[int, dict[str, str]]]:
    lines = _csv_lines(path)
    _, header = next(lines, (0, list[str]()))
    for line, cells in lines:
        if len(cells) > len(header):
            separator = "comma" if kind(path) == ".csv" else "tab"
            raise Refused(
                f"{path}, line {line}: {len(cells)} values for {len(header)} columns; text that holds a {separator} "
                "must stand in double quotes"
            )
        if cells:
            yield line, dict(zip(header, cells, strict=False))


def _csv_lines(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its last line, cells) of each record, the header included."""
    csv.field_size_limit(2**31 - 1)
    with _opened(path, newline="") as file:
        reader = csv.reader(file, delimiter=SEPARATORS[kind(path)], strict=True)
        try:
            for cells in reader:
                yield reader.line_num, cells
        except csv.Error as error:
            what = "a double quote is opened and not closed" if "unexpected end" in str(error) else error
            raise Refused(f"{path}, line {reader.line_num}: {what}") from None


def _json(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of its first line, object) of each row: an object a line or, in .json files, also an array of objects."""
    with _opened(path) as file:
        lines = ((line, text) for line, text in enumerate(file, 1) if text.strip())
        for number, (line, text) in enumerate(lines):
            if number == 0 and kind(path) == ".json" and text.lstrip().startswith("["):
                yield from _json_array(path, line, text + file.read())
                return
            yield line, _json_object(path, line, text)


def _json_array(path: str | Path, line: int, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of the array `text`, which starts in this line.

    The text is held whole, its objects one at a time: the standard library does not parse JSON in pieces, and a file
    that does not fit into memory is better written as json lines.
    """
    at, counted = _skip(text, text.index("[") + 1), 0
    more = text[at : at + 1] != "]"
    while more:
        line, counted = line + text.count("\n", counted, at), at
        row, at = _json_value(path, line, text, at)
        yield line, row
        at = _skip(text, at)
        more = text[at : at + 1] == ","
        at = _skip(text, at + 1) if more else at
    line += text.count("\n", counted, at)
    if text[at : at + 1] != "]":
        raise Refused(f"{path}, line {line} is not JSON: ',' or the array's ']' expected")
    if _skip(text, at + 1) < len(text):
        raise Refused(f"{path}, line {line} is not JSON: there is more behind the array's closing ']'")


def _skip(text: str, at: int) -> int:
    while text[at : at + 1] and text[at] in BLANK:
        at += 1
    return at


def _json_object(path: str | Path, line: int, text: str) -> dict[str, Any]:
    start = _skip(text, 0)
    row, end = _json_value(path, line, text, start)
    if _skip(text, end) < len(text):
        raise Refused(f"{path}, line {line} is not JSON: Extra data")
    return row


def _json_value(path: str | Path, line: int, text: str, at: int) -> tuple[dict[str, Any], int]:
    """The object that starts at `at`, and where it ends."""
    try:
        row, end = DECODER.raw_decode(text, at)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path}, line {line} is not JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(row, dict):
        raise Refused(f"{path}, line {line}: not a JSON object")
    return row, end


@contextlib.contextmanager
def _opened(path: str | Path, newline: str | None = None) -> Iterator[IO[str]]:
    """The text of a file; what goes wrong while it is read is Refused on one line."""
    try:
        with _unzipped(path, "rt", encoding="utf-8-sig", newline=newline) as file:
            yield file
    except UnicodeDecodeError as error:
        raise not_utf8(path, error) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise Refused(f"{path} cannot be unzipped, it is cut off or no gzip file: {error}") from None
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror or error}") from None


def _unzipped(path: str | Path, mode: str, **how: Any) -> Any:
    return gzip.open(path, mode, **how) if Path(path).suffix.lower() == ".gz" else open(path, mode, **how)


def not_utf8(path: str | Path, error: UnicodeDecodeError) -> Refused:
    """The refusal of a file in another encoding, with the line and the byte where it shows."""
    number, byte = 1, 0
    with _unzipped(path, "rb") as file:
        for number, raw in enumerate(file, 1):  # noqa: B007
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as found:
                byte = raw[found.start]
                break
    return Refused(f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8: save the file as UTF-8 ({error.reason})")
