"""The page: its sections in order, rendered by a template that escapes everything except our SVG drawings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from typing import TYPE_CHECKING

from job.report.html.blocks import Section
from job.report.html.drawing import DARK, LIGHT, Palette
from job.report.html.run_files import RunFiles
from job.report.html.sections import calibration, classes, data, facts, learning, numbers, predicted, rows, verdict
from job.runtime import files

if TYPE_CHECKING:
    from jinja2 import Template

SECTIONS = (
    verdict.section,
    learning.section,
    classes.confusion,
    classes.per_class,
    numbers.section,
    calibration.section,
    rows.worst,
    rows.suspicious,
    predicted.section,
    data.section,
    facts.time,
    facts.provenance,
    facts.settings,
)


def sections(run: RunFiles) -> list[Section]:
    """The sections that have content for this run."""
    return [made for section in SECTIONS if (made := section(run)) is not None]


def render(run: RunFiles) -> str:
    """The page as HTML: a single file that loads nothing else and runs no scripts."""
    state = run.status.get("state", "")
    unfinished = "" if run.results else f", run not finished{f' ({state})' if state else ''}"
    return document(run.name, f"Run report{unfinished}", sections(run), again="muster report")


def document(name: str, kind: str, sections: Sequence[Section], again: str) -> str:
    """A page as HTML; `kind` is shown above its name, `again` is the command that writes the page again."""
    return _template().render(
        name=name,
        kind=kind,
        sections=sections,
        again=again,
        written=files.utc_now(),
        light=colors(LIGHT),
        dark=colors(DARK),
    )


def colors(palette: Palette) -> dict[str, str]:
    """CSS variable -> colour."""
    return {field.name: getattr(palette, field.name) for field in fields(palette)}


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("job.report.html")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")
