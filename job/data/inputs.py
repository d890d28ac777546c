"""All columns of a test set as they were read, to be written next to the predictions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from job.data import readers
from job.data.columns import refuse_repeated
from job.data.readers import Quoting
from job.errors import Refused
from job.runtime import files

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

ROWS_AT_ONCE = 10_000
LARGEST_EXACT = 2**53
"""Integers up to this size are exact as floats."""


class Inputs(Protocol):
    """The rows of a test set with every column."""

    def columns(self) -> list[str]:
        """The names of all columns, each once."""

    def check(self) -> None:
        """Refused if a name occurs twice, or files store a column with different types."""

    def rows(self) -> Iterator[dict[str, Any]]:
        """Each row; columns that it does not have are missing."""

    def tables(self) -> Iterator[pa.Table]:
        """The rows as Arrow tables with a common schema."""


@dataclass(frozen=True)
class TextInputs:
    """Rows of csv, tsv, jsonl and json files.

    Attributes:
        digests: of the files at the time of the prediction.
    """

    paths: tuple[str, ...]
    digests: tuple[str, ...]
    quoting: Quoting

    def columns(self) -> list[str]:
        """The columns of the headers; for JSON, of all rows."""
        names: dict[str, None] = {}
        for path in self.paths:
            if readers.kind(path) in readers.SEPARATORS:
                names |= dict.fromkeys(self._header(path))
            else:
                for row in readers.rows(path):
                    names |= dict.fromkeys(row.values)
        return list(names)

    def check(self) -> None:
        for path in self.paths:
            if readers.kind(path) in readers.SEPARATORS:
                self._header(path)

    def _header(self, path: str) -> list[str]:
        header = readers.columns(path, self.quoting)
        refuse_repeated(header, header, path)
        return header

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows, read again; Refused if a file has changed."""
        _check_unchanged(self.paths, self.digests)
        for path in self.paths:
            for row in readers.rows(path, (), self.quoting):
                yield row.values

    def tables(self) -> Iterator[pa.Table]:
        """CSV columns are strings; a JSON column has the common type of its values, else it holds JSON text."""
        import pyarrow as pa

        schema = self._schema()
        for rows in _batched(self.rows()):
            columns = {field.name: [_fitting(row.get(field.name), field.type) for row in rows] for field in schema}
            yield pa.table(columns, schema=schema)

    def _schema(self) -> pa.Schema:
        import pyarrow as pa

        types: dict[str, set[type]] = {name: set() for name in self.columns()}
        for row in self.rows():
            for name, value in row.items():
                types[name].add(_type_of(value))
        return pa.schema([(name, _common_type(used - {type(None)})) for name, used in types.items()])


@dataclass(frozen=True)
class ParquetInputs:
    """Rows of parquet files.

    Attributes:
        digests: of the files at the time of the prediction.
    """

    paths: tuple[str, ...]
    digests: tuple[str, ...]

    def columns(self) -> list[str]:
        return list(self._schema().names)

    def check(self) -> None:
        self._schema()

    def rows(self) -> Iterator[dict[str, Any]]:
        return _rows_of(self.tables())

    def tables(self) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        _check_unchanged(self.paths, self.digests)
        schema = self._schema()
        for path in self.paths:
            for batch in pq.ParquetFile(path).iter_batches(ROWS_AT_ONCE):
                table = pa.Table.from_batches([batch])
                for name in schema.names:
                    if name not in table.column_names:
                        table = table.append_column(name, pa.nulls(len(table), schema.field(name).type))
                yield table.select(schema.names).cast(schema)

    def _schema(self) -> pa.Schema:
        """The columns of all files; Refused if a name occurs twice or a column has incompatible types."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schemas = [pq.read_schema(path).remove_metadata() for path in self.paths]
        for path, schema in zip(self.paths, schemas, strict=True):
            refuse_repeated(schema.names, schema.names, path)
        if all(schema.equals(schemas[0]) for schema in schemas):
            return schemas[0]
        try:
            return pa.unify_schemas(schemas, promote_options="permissive")
        except pa.ArrowException as error:
            raise Refused(
                f"the parquet files of {self.paths[0]} store a column with different types: {error}"
            ) from None


@dataclass(frozen=True)
class TableInputs:
    """Rows of a dataset."""

    table: Dataset

    def columns(self) -> list[str]:
        return list(self.table.column_names)

    def check(self) -> None:
        """A dataset has neither."""

    def rows(self) -> Iterator[dict[str, Any]]:
        return _rows_of(self.tables())

    def tables(self) -> Iterator[pa.Table]:
        return (table.replace_schema_metadata(None) for table in self.table.with_format("arrow").iter(ROWS_AT_ONCE))


def _batched(rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], ...]]:
    iterator = iter(rows)
    while some := tuple(itertools.islice(iterator, ROWS_AT_ONCE)):
        yield some


def _rows_of(tables: Iterable[pa.Table]) -> Iterator[dict[str, Any]]:
    for table in tables:
        yield from table.to_pylist()


def _check_unchanged(paths: Sequence[str], digests: Sequence[str]) -> None:
    for path, digest in zip(paths, digests, strict=True):
        if files.sha256(Path(path)) != digest:
            raise Refused(f"{path} changed during the prediction: run it again")


class _LongInt:
    """The type of an integer that fits 64 bits, but may not be exact as a float."""


def _type_of(value: Any) -> type:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) <= LARGEST_EXACT:
        return type(value)
    return _LongInt if -(2**63) <= value < 2**63 else object


def _common_type(types: set[type]) -> Any:
    import pyarrow as pa

    simple = {bool: pa.bool_(), int: pa.int64(), _LongInt: pa.int64(), float: pa.float64(), str: pa.string()}
    if types == {int, float}:
        return pa.float64()
    if types == {int, _LongInt}:
        return pa.int64()
    return simple.get(next(iter(types)), pa.string()) if len(types) == 1 else pa.string()


def _fitting(value: Any, kind: Any) -> Any:
    """A JSON value for a column of this type: as JSON text if the values of the column have several types."""
    import pyarrow as pa

    if value is None or not pa.types.is_string(kind):
        return value
    return as_text(value)


def as_text(value: Any) -> str:
    """A value as the text of a cell: strings as they are, None as "", JSON types as JSON, dates as str() shows them."""
    if value is None:
        return ""
    is_json = isinstance(value, bool | int | float | list | dict)
    text = json.dumps(value, ensure_ascii=False, default=str) if is_json else str(value)
    return text.encode("utf-8", "backslashreplace").decode()  # unpaired surrogates, in a column that is not used
