"""Parquet files as one Arrow table, memory-mapped from the cache of `datasets`."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.data import tables_cache
from job.data.columns import Columns
from job.data.labels import column as label_column
from job.data.library_errors import loading_errors, one_line
from job.errors import Refused

if TYPE_CHECKING:
    from datasets import Dataset, Features

ROWS_AT_ONCE = 10_000
"""Given to the library, because it would use the number of rows of the first row group, which may be none."""


def read(paths: Sequence[str], digests: Sequence[str], columns: Columns, origin: str) -> Dataset:
    """The rows of all files, whose content has these `digests`.

    Raises:
        Refused: a file cannot be read, or a column's type or class names differ from the first file's.
    """
    import pyarrow.parquet
    from datasets import Dataset

    try:
        features = common_features(paths, columns)
        with_rows = [path for path in paths if pyarrow.parquet.read_metadata(path).num_rows]
        if not with_rows:  # the library rejects files without rows
            return Dataset.from_dict({name: [] for name in features}, features=features)
        # Escaped, because the library interprets names as patterns.
        names = [glob.escape(str(Path(path).absolute())) for path in with_rows]
        cache = tables_cache.folder(digests)
        return Dataset.from_parquet(
            names, columns=list(columns.all), features=features, cache_dir=cache, batch_size=ROWS_AT_ONCE
        )
    except loading_errors() as error:
        raise Refused(f"{origin} cannot be read as parquet: {one_line(error)}") from error


def common_features(paths: Sequence[str], columns: Columns) -> Features:
    """The features of these columns, common to files that may store a column in different widths.

    The library would take them from the first file, and reject it for a type, such as a map, of a column that is not
    used.

    A label that is a number in one file and text in another, or an integer and a float, may mean different classes. The
    library would silently cast it.
    """
    import pyarrow
    import pyarrow.parquet
    from datasets import Features

    schemas = [_selected(pyarrow.parquet.read_schema(path), columns) for path in paths]
    for path, schema in zip(paths[1:], schemas[1:], strict=True):
        for name in columns.all:
            one, other = schemas[0].field(name).type, schema.field(name).type
            if None not in (_family(one), _family(other)) and _family(one) != _family(other):
                raise Refused(f"{path}: column {name} is {other}, but {one} in {paths[0]}: save both with one type")
        if columns.label is not None and _class_names(schema, columns) != _class_names(schemas[0], columns):
            raise Refused(f"{path}: the class names of column {columns.label} differ from those in {paths[0]}: save "
                          "both with the same ones")  # fmt: skip
    views = any(pyarrow.types.is_string_view(field.type) for schema in schemas for field in schema)
    are_equal = all(schema.equals(schemas[0]) for schema in schemas)
    if (are_equal and not views) or _class_names(schemas[0], columns):
        return Features.from_arrow_schema(schemas[0])
    return Features.from_arrow_schema(pyarrow.unify_schemas(map(_plain, schemas), promote_options="permissive"))


def place(paths: Sequence[str], row: int) -> str:
    """How messages refer to a row (0-based) of all files."""
    import pyarrow.parquet

    for path in paths:
        rows = pyarrow.parquet.read_metadata(path).num_rows
        if row < rows:
            return f"{path}, row {row + 1}"
        row -= rows
    raise IndexError(row)


def _selected(schema: Any, columns: Columns) -> Any:
    import pyarrow

    return pyarrow.schema([schema.field(name) for name in columns.all], metadata=schema.metadata)


def _plain(schema: Any) -> Any:
    """The schema without dictionaries, views and metadata, so that it can be unified with others."""
    import pyarrow

    def plain(kind: Any) -> Any:
        if pyarrow.types.is_dictionary(kind):
            return plain(kind.value_type)
        return pyarrow.string() if pyarrow.types.is_string_view(kind) else kind

    return pyarrow.schema((field.name, plain(field.type)) for field in schema)


def _class_names(schema: Any, columns: Columns) -> tuple[str, ...]:
    from datasets import Features

    return label_column.class_names(Features.from_arrow_schema(schema).get(columns.label))


def _family(kind: Any) -> str | None:
    """The kind of value that a type stores, regardless of width; None for a column of nulls only."""
    import pyarrow

    types = pyarrow.types
    if types.is_dictionary(kind):
        return _family(kind.value_type)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return f"list of {_family(kind.value_type)}"
    families = {
        "text": types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind),
        "whole number": types.is_integer(kind),
        "float": types.is_floating(kind),
    }
    return None if types.is_null(kind) else next((name for name, fits in families.items() if fits), str(kind))
