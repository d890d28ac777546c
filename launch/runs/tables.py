"""Tables and pages of facts: coloured on a terminal; plain columns in a pipe, not truncated or wrapped."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from launch.console import discard_stdout

COLORS = {
    "RUNNING": "cyan",
    "DONE": "green",
    "FAILED": "red",
    "LOST": "red",
    "NEEDS_HUMAN": "red",
    "QUEUED": "yellow",
    "STOPPED": "yellow",
    "CANCELLED": "yellow",
}
UNLIMITED = 100_000
LONGEST_NUMBER = 8
"""Characters of a setting that is shown as it is: a search chooses numbers with 17 digits."""


def console(stream: TextIO | None = None) -> Console:
    """A console for stdout: as wide as the terminal, or as the text without one. Text is printed as it is."""
    to = stream or sys.stdout
    width = None if to.isatty() else UNLIMITED
    return Console(file=to, highlight=False, markup=False, emoji=False, soft_wrap=False, width=width)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> Table:
    """A table with a header; columns in `right` are right-aligned. Cells that contain only a state are coloured."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell, style=COLORS.get(cell, "")) for cell in row))
    return made


def page(facts: Mapping[str, str]) -> Table:
    """One fact per line, without empty ones."""
    made = Table.grid(padding=(0, 2, 0, 0))
    made.add_column(style="bold")
    made.add_column(overflow="fold")
    for name, value in facts.items():
        if value:
            made.add_row(name, Text(value, style=COLORS.get(value.partition(" ")[0], "")))
    return made


def show(shown: RenderableType) -> None:
    """Print to stdout; in a pipe without trailing spaces."""
    to = console()
    if to.is_terminal:
        to.print(shown)
        return
    text = io.StringIO()
    console(text).print(shown)
    write("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def write(text: str) -> None:
    """Print a text; a closed pipe, for example with `head`, is not an error.

    Raises:
        SystemExit: with 0, if the pipe is closed.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        discard_stdout()
        raise SystemExit(0) from None


def setting(value: object) -> str:
    """A setting's value in a cell: lists joined by commas, paths by their last part, long numbers rounded."""
    if value is None:
        return "-"
    if isinstance(value, float) and len(str(value)) > LONGEST_NUMBER:
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ",".join(map(setting, value))
    text = str(value)
    return Path(text).name if text.startswith("/") else text
