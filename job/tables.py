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
        with open(path, newline="", encoding="utf-8-sig") as file:
            header = next(csv.reader(file), None)
        if not header:
            raise Refused(f"{path} is empty: its first line must name the columns")
        return header
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


def _csv(path: str | Path) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(2**31 - 1)
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            for cells in reader:
                if len(cells) > len(header):
                    raise Refused(f"{path}, line {reader.line_num}: {len(cells)} values for {len(header)} columns; "
                                  "text that holds a comma must stand in double quotes")  # fmt: skip
                if cells:
                    yield reader.line_num, dict(zip(header, cells, strict=False))
        except csv.Error as error:
            raise Refused(f"{path}, line {reader.line_num}: {error}") from None


def _jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with open(path, encoding="utf-8-sig") as file:
        for line, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except ValueError as error:
                raise Refused(f"{path}, line {line} is not JSON: {error}") from None
            if not isinstance(row, dict):
                raise Refused(f"{path}, line {line}: not a JSON object")
            yield line, row
