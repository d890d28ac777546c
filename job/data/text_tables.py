"""csv, tsv, jsonl and json files as an Arrow table in the cache, keyed by their content."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from job.data import library_errors, readers, texts
from job.data.columns import Columns, Request, refuse_other_choice
from job.data.readers import Quoting
from job.errors import Refused
from job.runtime import files

if TYPE_CHECKING:
    from datasets import Dataset

SPANNING, QUOTED = "muster: cells of several lines", "muster: cells in quotes"
"""Columns of the table in addition to the texts and the label (which is stored as JSON text)."""


@dataclass(frozen=True)
class TextFiles:
    """Text files, read one after the other, and what to read from them.

    Attributes:
        columns: the columns of the first row that fit what was `asked`.
    """

    paths: tuple[str, ...]
    asked: Request
    columns: Columns
    to_predict: bool
    quoting: Quoting = None

    @property
    def are_untyped(self) -> bool:
        """Whether no file has types: in csv and tsv every value is text."""
        return all(readers.kind(path) in readers.SEPARATORS for path in self.paths)

    def rows(self) -> Iterator[tuple[str, readers.Row]]:
        """(how messages refer to it, row)."""
        for path in self.paths:
            yield from self.rows_of(path)

    def rows_of(self, path: str) -> Iterator[tuple[str, readers.Row]]:
        """Likewise of one file; Refused if a row of JSON has a key that would change the choice of columns."""
        there: dict[str, None] = {}
        for number, row in enumerate(readers.rows(path, self.columns.all, self.quoting), 1):
            place = f"{path}, row {number}"
            if not row.values.keys() <= there.keys():
                there |= dict.fromkeys(row.values)
                if number > 1:
                    refuse_other_choice(list(there), self.asked, self.columns, place, "row 1")
            yield place, row

    def place(self, row: int) -> str:
        """How messages refer to a row (0-based) of all files. Several files are read again, up to this row."""
        if len(self.paths) == 1:
            return f"{self.paths[0]}, row {row + 1}"
        return next(itertools.islice(self.rows(), row, None))[0]


def read(source: TextFiles, fingerprint: str) -> Dataset:
    """The texts and labels of all rows; `fingerprint` identifies the files' content, the columns and the reader.

    Raises:
        Refused: a row cannot be read or has no text.
    """
    from datasets import Dataset, Features, Value
    from datasets.exceptions import DatasetsError

    kinds = {name: Value("string") for name in source.columns.all}
    features = Features({**kinds, SPANNING: Value("int32"), QUOTED: Value("bool")})
    if next(source.rows(), None) is None:  # from_generator rejects an empty generator
        return Dataset.from_dict({name: [] for name in features}, features=features)
    # A test set may have empty rows, so a run that trains on the same file must not reuse its table.
    # Likewise the rows of JSON may be rejected unless the columns are named.
    asked = None if source.are_untyped else dataclasses.astuple(source.asked)
    key = files.digest([fingerprint, source.to_predict, asked])[:32]
    try:
        return Dataset.from_generator(_generate, features=features, gen_kwargs={"source": source}, fingerprint=key)
    except DatasetsError as error:  # wraps what the generator raised
        for cause in library_errors.causes(error):
            if isinstance(cause, Refused):
                raise cause from None
        raise


def _generate(source: TextFiles) -> Iterator[dict[str, Any]]:
    for place, row in source.rows():
        values: dict[str, Any] = dict(
            texts.checked(place, {name: row.values.get(name) for name in source.columns.text}, source.to_predict)
        )
        label = source.columns.label
        if label is not None:
            values[label] = json.dumps(row.values.get(label), ensure_ascii=False)
            texts.refuse_unpaired_surrogates(place, values[label])
        yield {**values, SPANNING: row.spanning, QUOTED: row.quoted}


def remarks(table: Dataset, source: TextFiles) -> list[str]:
    """Signs of stray quotation marks, for the `data` line of the log."""
    import pyarrow.compute as pc

    lines = []
    spanning, quoted = table.data.column(SPANNING), table.data.column(QUOTED)
    first = pc.index(pc.greater(spanning, 0), True).as_py() if len(table) else -1
    if first >= 0:
        count = pc.sum(spanning).as_py()
        what = f"{count:,} cells span" if count > 1 else "1 cell spans"
        lines.append(f"{what} several lines; the first is {source.place(first)}")
    first = pc.index(quoted, True).as_py() if len(table) else -1
    if first >= 0:
        count = pc.sum(quoted).as_py()
        rows = f"{count:,} rows have" if count > 1 else "1 row has"
        lines.append(f"{rows} a cell in double quotes, read without the quotes; the first is {source.place(first)} "
                     "(--csv_quoting none keeps them)")  # fmt: skip
    return lines
