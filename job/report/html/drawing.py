"""A matplotlib figure as SVG that takes its colours from the page, and as PNG.

Figures are drawn in placeholder colours, which become CSS variables: one drawing serves light, dark and print. Text
stays text, so it is set in the reader's font. pyplot, which keeps state for the whole process, is not imported.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Palette:
    """Colours by their use. Blue, vermilion and near-black (near-white in the dark) differ for any colour vision."""

    ink: str
    muted: str
    grid: str
    paper: str
    first: str
    second: str
    third: str


LIGHT = Palette("#1b1f24", "#59636e", "#d8dee4", "#ffffff", "#0072b2", "#b84a00", "#2b2b2b")
DARK = Palette("#e6edf3", "#9aa5b1", "#39424d", "#14181d", "#56b4e9", "#f0a35e", "#f0f0d8")
PLACEHOLDERS = Palette(*(f"#0a0b0{i}" for i in range(7)))
SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "muster",
    "text.parse_math": False,  # a class may be called $x$
    "axes.unicode_minus": True,
    "font.size": 9.0,
    "lines.linewidth": 1.4,
    "lines.markersize": 4.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "path.simplify": True,
}
REM_PER_INCH = 6.6
"""Largest size on the page: 9 points of the drawing are then about 13 pixels."""
SMALLEST = 0.7
"""To what part of that a picture with names is scaled down in a narrow window, which scrolls it then."""
NUMBERS = re.compile(r"(-?\d+\.\d\d)\d+")

Draw = Callable[["Axes", Palette], None]


@contextmanager
def settings() -> Iterator[None]:
    """Within, matplotlib draws as all pictures here are drawn; then its settings are what they were."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # of a script its font lacks: the SVG keeps the text
        yield


def figure(draw: Draw, palette: Palette, width: float, height: float, names: float = 0.0) -> Figure:
    """A figure of one picture, sizes in inches; `names`: what the names along its axes need.

    The margins are set rather than fitted to the text, which would take as long as drawing.
    """
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height))
    left, bottom = (0.3 + names, 0.3 + names) if names else (0.72, 0.48)
    made.subplots_adjust(left / width, bottom / height, 1 - 0.12 / width, 1 - 0.16 / height)
    add(made.add_subplot(), draw, palette)
    return made


def add(axes: Axes, draw: Draw, palette: Palette) -> None:
    """Draw a picture on these axes, in the colours of the palette."""
    axes.figure.set_facecolor("none" if palette is PLACEHOLDERS else palette.paper)
    axes.set_facecolor("none")
    axes.tick_params(colors=palette.muted, labelcolor=palette.muted, length=3, width=0.6)
    for spine in axes.spines.values():
        spine.set(color=palette.muted, linewidth=0.6)
    axes.grid(color=palette.grid, linewidth=0.6)
    axes.set_axisbelow(True)
    draw(axes, palette)
    axes.xaxis.label.set_color(palette.ink)
    axes.yaxis.label.set_color(palette.ink)
    axes.title.set_color(palette.ink)
    if (legend := axes.get_legend()) is not None:
        legend.get_frame().set(facecolor=palette.paper, edgecolor="none", alpha=0.85)
        for text in legend.get_texts():
            text.set_color(palette.ink)


def make_logarithmic(axes: Axes, axis: Literal["x", "y"]) -> None:
    """Give an axis a logarithmic scale with plain numbers: matplotlib writes formulas, which are off here."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    made = axes.xaxis if axis == "x" else axes.yaxis
    (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
    made.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    made.set_minor_formatter(NullFormatter())


def svg(name: str, draw: Draw, width: float = 4.8, height: float = 2.9, names: float = 0.0) -> Markup:
    """A picture for the page; `name` makes its ids unique there, the rest as in `figure`."""
    written = io.StringIO()
    with settings():
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure(draw, PLACEHOLDERS, width, height, names).savefig(written, format="svg", metadata=metadata)
    least = SMALLEST * width if names else 0.0
    return Markup(_themed(written.getvalue(), name, width, least))  # matplotlib has escaped the text


def png(figure: Figure, path: Path) -> None:
    """Write a figure for a mail or a page of notes."""
    figure.savefig(path, format="png", dpi=120, facecolor=figure.get_facecolor())


def _themed(text: str, name: str, width: float, least: float) -> str:
    """The SVG element alone, with the page's colours and font, and ids that are its own."""
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box is not None
    inner = text[text.index("<g id=") : text.rindex("</svg>")]
    inner = re.sub(r"<(metadata|style)\b.*?</\1>", "", inner, flags=re.DOTALL)
    inner = re.sub(r"<!--.*?-->", "", inner, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', inner))
    inner = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", inner)
    inner = re.sub(r"(url\(#|href=\"#)", rf"\1{name}-", inner)
    inner = re.sub(r' (d|x|y|transform|points)="[^"]*"', lambda m: NUMBERS.sub(r"\1", m[0]), inner)
    inner = re.sub(r' style="[^"]*"', lambda m: _style(m[0]), inner)
    inner = inner.replace("xlink:href", "href")
    return (
        f'<svg viewBox="{box[1]}" role="img" '
        f'style="max-width: {width * REM_PER_INCH:.1f}rem; min-width: {least * REM_PER_INCH:.1f}rem" '
        f'aria-labelledby="{escape(name)}-title">{inner}</svg>'
    )


def _style(attribute: str) -> str:
    attribute = re.sub(r"font-family: [^;\"]*;? ?", "", attribute)
    for use, placeholder in vars(PLACEHOLDERS).items():
        attribute = attribute.replace(placeholder, f"var(--{use})")
    return attribute
