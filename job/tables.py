"""Rows of csv and jsonl files, exactly as they stand in the file.

The usual readers guess types by column or block: a text column of digits becomes numbers (007 -> 7), "NA" becomes
nothing, dates become timestamps. Here a csv cell is the text between its commas, and a jsonl value what JSON says it
is. Standard library only, so that a login node checks a file with the same reader.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from job.errors import Refused

FORMATS = (".csv", ".jsonl", ".parquet")


def columns(path: str | Path) -> list[str]:
    """Names of the columns of a csv (header) or jsonl (keys of the first row) file."""
    if Path(path).suffix == ".csv":
        return next(_csv_lines(path), (0, list[str]()))[1] or _refuse_empty(path)
    first = next(_jsonl(path), None)
    if first is None:
        raise Refused(f"{path} is empty: it must hold one JSON object a line")
    return list(first[1])


def rows(path: str | Path, names: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The columns `names` of each row, in order; csv values are str, jsonl values what JSON holds.

    Raises:
        Refused: a row that does not have these columns or cannot be read, by its line.
    """
    table = _csv(path) if Path(path).suffix == ".csv" else _jsonl(path)
    for line, row in table:
        missing = [name for name in names if name not in row]
        if missing:
            raise Refused(f"{path}, line {line}: no value for {missing[0]}")
        yield {name: row[name] for name in names}


def _refuse_empty(path: str | Path) -> list[str]:
    raise Refused(f"{path} is empty: its first line must name the columns")


def _csv(path: str | Path) -> Iterator[tuple[int, dict[str, str]]]:
    lines = _csv_lines(path)
    _, header = next(lines, (0, list[str]()))
    for line, cells in lines:
        if len(cells) > len(header):
            raise Refused(
                f"{path}, line {line}: {len(cells)} values for {len(header)} columns; text that holds a comma must "
                "stand in double quotes"
            )
        if cells:
            yield line, dict(zip(header, cells, strict=False))


def _csv_lines(path: str | Path) -> Iterator[tuple[int, list[str]]]:
    """(number of its last line, cells) of each record, the header included."""
    csv.field_size_limit(2**31 - 1)
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            for cells in reader:
                yield reader.line_num, cells
        except csv.Error as error:
            what = "a double quote is opened and not closed" if "unexpected end" in str(error) else error
            raise Refused(f"{path}, line {reader.line_num}: {what}") from None
        except UnicodeDecodeError as error:
            raise not_utf8(path, error) from None


def _jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig") as file:
        try:
            for line, text in enumerate(file, 1):
                if text.strip():
                    yield line, _json_object(path, line, text)
        except UnicodeDecodeError as error:
            raise not_utf8(path, error) from None


def _json_object(path: str | Path, line: int, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except ValueError as error:
        raise Refused(f"{path}, line {line} is not JSON: {getattr(error, 'msg', error)}") from None
    if not isinstance(row, dict):
        raise Refused(f"{path}, line {line}: not a JSON object")
    return row


def not_utf8(path: str | Path, error: UnicodeDecodeError) -> Refused:
    """The refusal of a file in another encoding, with the line and the byte where it shows."""
    number, byte = 1, 0
    with open(path, "rb") as file:
        for number, raw in enumerate(file, 1):  # noqa: B007
            try:
                raw.decode("utf-8")
            except UnicodeDecodeError as found:
                byte = raw[found.start]
                break
    return Refused(f"{path}, line {number}: byte 0x{byte:02x} is not UTF-8: save the file as UTF-8 ({error.reason})")
