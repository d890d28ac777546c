"""The page: its sections in order, written by the template, which escapes all that is not a drawing of ours."""

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
    """Those that there is something to say in."""
    return [made for section in SECTIONS if (made := section(run)) is not None]


def render(run: RunFiles) -> str:
    """The page as text: one file that asks for nothing else, and runs no script."""
    state = run.status.get("state", "")
    unfinished = "" if run.results else f", run not finished{f' ({state})' if state else ''}"
    return document(run.name, f"Run report{unfinished}", sections(run), again="muster report")


def document(name: str, kind: str, sections: Sequence[Section], again: str) -> str:
    """A page of sections; `kind` says above its name what it is, `again` is the command that writes it again."""
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
    """Name of a colour in the style sheet -> its value."""
    return {field.name: getattr(palette, field.name) for field in fields(palette)}


@cache
def _template() -> Template:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("job.report.html")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html.j2")
