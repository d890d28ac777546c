"""The rule for texts: what is text, what is empty, and where empty texts are accepted.

A text is empty if it is null, has no characters or only blanks; a pair is empty if both halves are. An empty row
teaches and measures nothing, so it is rejected in training and evaluation data. In test data every row is predicted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from job.errors import Refused

if TYPE_CHECKING:
    from datasets import Dataset


def checked(place: str, texts: Mapping[str, Any], to_predict: bool) -> dict[str, str]:
    """The texts (column -> value) of a row, null as "".

    Raises:
        Refused: a value is not text or, except in test data, all are empty.
    """
    for name, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise Refused(f"{place}: {name} is {repr(text)[:80]}, not text: correct it or remove the row")
        if text is not None:
            refuse_unpaired_surrogates(place, text)
    if not to_predict and not any(text and text.strip() for text in texts.values()):
        raise _empty(place, list(texts))
    return {name: text or "" for name, text in texts.items()}


def refuse_unpaired_surrogates(place: str, text: str) -> None:
    """Raise Refused for an unpaired surrogate, as in truncated JSON strings: it cannot be encoded as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        surrogate = text[error.start].encode("unicode_escape").decode()
        raise Refused(
            f"{place}: {surrogate} is an unpaired surrogate (invalid Unicode): correct it or remove the row"
        ) from None


def nulls_as_text(table: Dataset, names: Sequence[str]) -> Dataset:
    """The table with text columns that have no value at all, and therefore no type, as columns of null texts."""
    from datasets import Value

    for name in names:
        if getattr(table.features[name], "dtype", None) == "null":
            table = table.cast_column(name, Value("string"))
    return table


def check_table(
    table: Dataset, names: Sequence[str], origin: str, place: Callable[[int], str], to_predict: bool
) -> None:
    """Check the text columns `names` of a typed table; `place` is how messages refer to a row (0-based).

    Raises:
        Refused: a column is not text or, except in test data, a row is empty.
    """
    for name in names:
        if getattr(table.features[name], "dtype", None) not in ("string", "large_string"):
            raise Refused(f"{origin}: column {name} is {table.features[name]}, not text: name another column with "
                          "--text_column_names")  # fmt: skip
    if not to_predict:
        row = _first_empty(table, names)
        if row is not None:
            raise _empty(place(row), names)


def count_empty(table: Dataset, names: Sequence[str]) -> tuple[int, int | None]:
    """The number of empty rows of a table, and the first of them (0-based; None: no empty row)."""
    import pyarrow.compute as pc

    empty = sum(pc.sum(_is_empty(batch)).as_py() or 0 for batch in _batches(table, names))
    return empty, _first_empty(table, names) if empty else None


def _first_empty(table: Dataset, names: Sequence[str]) -> int | None:
    import pyarrow.compute as pc

    start = 0
    for batch in _batches(table, names):
        at = pc.index(_is_empty(batch), True).as_py()
        if at >= 0:
            return start + at
        start += len(batch)
    return None


def _batches(table: Dataset, names: Sequence[str]) -> list[Any]:
    return table.data.table.select(list(names)).to_batches()


def _is_empty(batch: Any) -> Any:
    """bool[n], whether all columns of a pyarrow batch are empty."""
    import pyarrow.compute as pc

    def empty(text: Any) -> Any:
        return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(text), ""), True)

    return functools.reduce(pc.and_, map(empty, batch.columns))


def _empty(place: str, names: Sequence[str]) -> Refused:
    are = f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} empty"
    return Refused(f"{place}: {are}: add text or remove the row")
