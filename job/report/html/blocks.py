"""The parts of a page: sections of paragraphs, tables and pictures, as plain values that the template renders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text; `lead` marks the first one of the page."""

    text: str
    lead: bool = False
    kind: str = "paragraph"


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        caption: what it shows; screen readers read it first.
        columns: the column headers.
        rows: rows of formatted cells.
        numbers: indices of the columns to align right.
        texts: indices of the columns with text from the data, which may be long and in any script.
        folded: whether the table is collapsed at first.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    texts: frozenset[int] = frozenset()
    folded: bool = False
    kind: str = "table"


@dataclass(frozen=True)
class Picture:
    """A picture with a caption and a description for readers who cannot see it.

    Attributes:
        name: id of the picture, unique in the page.
        title: what the picture shows.
        description: what can be seen in it, in words and numbers.
        svg: the drawing as an SVG element.
        wide: whether it spans the whole page.
    """

    name: str
    title: str
    description: str
    svg: Markup
    wide: bool = False
    kind: str = "picture"


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    name: str
    title: str
    blocks: Sequence[Paragraph | Table | Picture] = field(default_factory=list)


def numbers_from(first: int, columns: Sequence[str]) -> frozenset[int]:
    """The indices of the columns from `first` on."""
    return frozenset(range(first, len(columns)))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def count(number: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short(text: str, longest: int = 40) -> str:
    """A text from the data, such as a class name, shortened to fit into a line."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
