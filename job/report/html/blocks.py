"""What a page is made of: sections of paragraphs, tables and pictures. Plain values, which the template writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup


@dataclass(frozen=True)
class Paragraph:
    """A paragraph of text; `lead` is the first of the page."""

    text: str
    lead: bool = False
    kind: str = "paragraph"


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        caption: what it shows, read out before it.
        columns: the headers.
        rows: of cells; a text in the form that is shown.
        numbers: columns to set to the right.
        texts: columns with text of the data, which may be long and in any script.
        folded: whether it is shown only when it is opened.
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
    """A picture with a caption, and what a reader who does not see it gets.

    Attributes:
        name: its id, unique in the page.
        title: what it shows.
        description: what can be seen in it, in words and numbers.
        svg: the drawing.
        wide: whether it takes the whole width.
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
    """The columns from this one on."""
    return frozenset(range(first, len(columns)))


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def count(number: int, noun: str) -> str:
    """`1 row`, `2,000 rows`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def short(text: str, longest: int = 40) -> str:
    """A name that fits into a line: it may be any text of the data."""
    text = " ".join(text.split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
