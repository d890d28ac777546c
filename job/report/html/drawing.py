"""Renders matplotlib figures as SVG in the colours of the page, and as PNG.

For SVG, figures are drawn in placeholder colours that are replaced by CSS variables: one drawing works for light and
dark mode and for print. Text is kept as text and shown in the reader's font. pyplot is not imported: it has global
state.
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
    """Colours by purpose. Blue, vermilion and near-black (near-white in dark mode) can be distinguished by everyone."""

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
"""Maximum scale of a drawing on the page: 9 points are then about 13 pixels."""
MIN_SCALE = 0.7
"""Minimum scale of a picture with class names, relative to the maximum: narrower windows scroll it."""
DECIMALS = re.compile(r"(-?\d+\.\d\d)\d+")

Draw = Callable[["Axes", Palette], None]


@contextmanager
def settings() -> Iterator[None]:
    """Context with the matplotlib settings of all pictures; the previous settings are restored."""
    import matplotlib as mpl

    with mpl.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # matplotlib's font lacks a script: the SVG keeps the text
        yield


def figure(draw: Draw, palette: Palette, width: float, height: float, names: float = 0.0) -> Figure:
    """A figure with one picture. Sizes are in inches; `names` is the space for class names along the axes.

    Margins are fixed: fitting them to the text would take as long as drawing.
    """
    from matplotlib.figure import Figure

    made = Figure(figsize=(width, height))
    left, bottom = (0.3 + names, 0.3 + names) if names else (0.72, 0.48)
    made.subplots_adjust(left / width, bottom / height, 1 - 0.12 / width, 1 - 0.16 / height)
    add(made.add_subplot(), draw, palette)
    return made


def add(axes: Axes, draw: Draw, palette: Palette) -> None:
    """Draw a picture on `axes` in the colours of `palette`."""
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
    """Set a logarithmic scale with plain numbers as labels: matplotlib's default labels need math text, which is
    off."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    made = axes.xaxis if axis == "x" else axes.yaxis
    (axes.set_xscale if axis == "x" else axes.set_yscale)("log")
    made.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    made.set_minor_formatter(NullFormatter())


def svg(name: str, draw: Draw, width: float = 4.8, height: float = 2.9, names: float = 0.0) -> Markup:
    """A picture for the page; `name` makes its ids unique. Other arguments as in `figure`."""
    written = io.StringIO()
    with settings():
        metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure(draw, PLACEHOLDERS, width, height, names).savefig(written, format="svg", metadata=metadata)
    min_width = MIN_SCALE * width if names else 0.0
    return Markup(_themed(written.getvalue(), name, width, min_width))  # matplotlib has escaped the text


def png(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, for use outside of the report."""
    figure.savefig(path, format="png", dpi=120, facecolor=figure.get_facecolor())


def _themed(text: str, name: str, width: float, min_width: float) -> str:
    """The SVG element with the colours and font of the page, and with unique ids."""
    box = re.search(r'viewBox="([^"]+)"', text)
    assert box is not None
    inner = text[text.index("<g id=") : text.rindex("</svg>")]
    inner = re.sub(r"<(metadata|style)\b.*?</\1>", "", inner, flags=re.DOTALL)
    inner = re.sub(r"<!--.*?-->", "", inner, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', inner))
    inner = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", inner)
    inner = re.sub(r"(url\(#|href=\"#)", rf"\1{name}-", inner)
    inner = re.sub(r' (d|x|y|transform|points)="[^"]*"', lambda m: DECIMALS.sub(r"\1", m[0]), inner)
    inner = re.sub(r' style="[^"]*"', lambda m: _style(m[0]), inner)
    inner = inner.replace("xlink:href", "href")
    return (
        f'<svg viewBox="{box[1]}" role="img" '
        f'style="max-width: {width * REM_PER_INCH:.1f}rem; min-width: {min_width * REM_PER_INCH:.1f}rem" '
        f'aria-labelledby="{escape(name)}-title">{inner}</svg>'
    )


def _style(attribute: str) -> str:
    attribute = re.sub(r"font-family: [^;\"]*;? ?", "", attribute)
    for use, placeholder in vars(PLACEHOLDERS).items():
        attribute = attribute.replace(placeholder, f"var(--{use})")
    return attribute
