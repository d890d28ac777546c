"""report.html in a browser: no script in the data runs, nothing overflows, and it needs neither mouse nor sight."""

from __future__ import annotations

import dataclasses
import html
import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from job.config.tasks import MULTI_LABEL, REGRESSION
from job.report.html import page as pages
from job.report.html import writing
from job.report.html.drawing import DARK, LIGHT, Palette
from tests.support import reports
from tests.support.browser import Browser
from tests.support.reports import Made

SCRIPT = "<script>window.ran = 1</script>"
IMAGE = '"><img src=x onerror="window.ran=1">'
TEXT = f"</td></table>{SCRIPT}{IMAGE}<svg onload=window.ran=1> {{{{ 7 * 7 }}}} \u202egnihtemos \u4e2d\u6587 {'w' * 900}"
NAMES = (SCRIPT, IMAGE, "</text></svg>" + SCRIPT, "$\\frac{", "a name that is long " * 30)
HOSTILE = Made(
    names=NAMES, text=TEXT, columns=(IMAGE, SCRIPT), restarts=(30,), settings={"train_file": f"{SCRIPT}.csv", "seed": 7}
)
KINDS = {
    "classes": HOSTILE,
    "77 classes": dataclasses.replace(HOSTILE, names=(*NAMES, *(f"{IMAGE} {i}" for i in range(72))), rows=2000),
    "several labels": dataclasses.replace(HOSTILE, kind=MULTI_LABEL),
    "numbers": dataclasses.replace(HOSTILE, kind=REGRESSION, rows=2000),
    "predictions only": dataclasses.replace(HOSTILE, labelled=False),
    "going on": HOSTILE,
}
FOLDER = "<img src=x onerror=window.ran=1>"
NARROW, WIDE = 360, 1400
OVERFLOWS = """
    const inside = element => element.closest(".scroll") !== null || element.closest(".skip") !== null;
    const beyond = [...document.querySelectorAll("body *")].filter(
        element => !inside(element) && element.getBoundingClientRect().right > window.innerWidth + 1);
    const page = document.documentElement.scrollWidth - window.innerWidth;
    return {page, beyond: beyond.map(element => element.outerHTML.slice(0, 80))};
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind of run -> its report, in a folder whose name is a script too."""
    paths = {}
    for kind, of in KINDS.items():
        path = tmp_path_factory.mktemp("run") / FOLDER
        folder = reports.begun(path, of) if kind == "going on" else reports.finished(path, of)
        if kind == "going on":
            status = json.loads(folder.status.read_text())
            folder.status.write_text(json.dumps({**status, "state": "FAILED", "reason": TEXT}))
        writing.write(folder)
        paths[kind] = folder.report
    return paths


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The report of an ordinary run."""
    folder = reports.finished(tmp_path / "a-run", Made(names=("calm", "angry", "sad"), restarts=(45,)))
    writing.write(folder)
    return folder.report


@pytest.mark.parametrize(("width", "scheme"), itertools.product((NARROW, WIDE), ("light", "dark")))
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_runs_and_nothing_overflows(
    kind: str, width: int, scheme: str, made: dict[str, Path], browser: Browser
) -> None:
    browser.show(width=width, scheme=scheme)
    browser.open(made[kind])
    browser.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    assert browser.run("return typeof window.ran") == "undefined"
    assert browser.log("browser") == []
    assert browser.requests() == [made[kind].absolute().as_uri()]
    assert browser.run("return document.querySelectorAll('script, img, iframe, object, link').length") == 0
    overflow = browser.run(OVERFLOWS)
    assert (overflow["page"] <= 0, overflow["beyond"]) == (True, [])
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == rgb(
        LIGHT.paper if scheme == "light" else DARK.paper
    )
    if folder := os.environ.get("REPORT_PICTURES"):  # to look at
        Path(folder, f"{kind} {width} {scheme}.png".replace(" ", "-")).write_bytes(browser.picture())


def rgb(color: str) -> str:
    return f"rgb({', '.join(str(int(color[i : i + 2], 16)) for i in (1, 3, 5))})"


def test_a_page_without_escaping_is_detected_and_still_runs_nothing(
    made: dict[str, Path], tmp_path: Path, browser: Browser
) -> None:
    """The twin without escaping: what was planted runs, unless the page's content security policy forbids it."""
    unescaped = html.unescape(made["classes"].read_text(encoding="utf-8"))
    guarded, open_to_all = tmp_path / "guarded.html", tmp_path / "open.html"
    guarded.write_text(unescaped, encoding="utf-8")
    open_to_all.write_text(re.sub(r"<meta http-equiv=[^>]*>", "", unescaped), encoding="utf-8")
    browser.show(width=WIDE)
    browser.open(open_to_all)
    assert browser.run("return window.ran") == 1
    browser.open(guarded)
    assert browser.run("return typeof window.ran") == "undefined"
    assert any("Content Security Policy" in entry["message"] for entry in browser.log("browser"))


def test_an_overflow_is_detected(plain: Path, tmp_path: Path, browser: Browser) -> None:
    wide = tmp_path / "wide.html"
    wide.write_text(plain.read_text().replace("</main>", '<p style="width: 3000px; max-width: none">wide</p></main>'))
    browser.show(width=NARROW)
    browser.open(wide)
    overflow = browser.run(OVERFLOWS)
    assert overflow["page"] > 0 and "wide" in overflow["beyond"][0]


def test_names_and_texts_are_shown_as_they_are(made: dict[str, Path], browser: Browser) -> None:
    browser.show(width=WIDE)
    browser.open(made["classes"])
    cells = browser.run("return [...document.querySelectorAll('th, td')].map(cell => cell.textContent)")
    assert set(NAMES) <= set(cells)
    assert any(cell.startswith(TEXT[:100]) and cell.endswith(" …") for cell in cells)
    assert browser.run("return document.querySelector('h1').textContent") == FOLDER
    drawn = browser.run("return [...document.querySelectorAll('svg text')].map(text => text.textContent)")
    assert "$\\frac{" in drawn and SCRIPT[:21] + "…" in drawn


def test_print_is_light_and_shows_what_is_folded(plain: Path, browser: Browser) -> None:
    browser.show(width=WIDE, scheme="dark", media="print")
    browser.open(plain)
    assert browser.run("return getComputedStyle(document.body).backgroundColor") == rgb(LIGHT.paper)
    shown = "return document.querySelector('details:not([open]) table').checkVisibility()"
    assert browser.run(shown) is True
    browser.show(width=WIDE, scheme="dark")
    assert browser.run(shown) is False
    printed = browser.devtools("Page.printToPDF", printBackground=True)
    assert len(printed["data"]) > 10_000


def nodes(browser: Browser) -> list[tuple[str, str]]:
    """(role, name) of what a screen reader is given, in order."""
    tree = browser.devtools("Accessibility.getFullAXTree")["nodes"]
    shown = (node for node in tree if not node.get("ignored"))
    return [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in shown]


def test_a_reader_without_sight_gets_names_headings_captions_and_headers(plain: Path, browser: Browser) -> None:
    browser.show(width=WIDE)
    browser.open(plain)
    browser.run("document.querySelectorAll('details').forEach(details => details.open = true)")
    given = nodes(browser)
    print("\n".join(f"{role}: {name}" for role, name in given if role in ("heading", "image", "table", "region")))
    by_role: dict[str, list[str]] = {}
    for role, name in given:
        by_role.setdefault(role, []).append(name)
    assert by_role["heading"] == ["a-run", "Verdict", "Learning curves", "Confusion", "Classes", "Calibration",
                                  "Mistakes", "Probable label errors", "Data", "Time", "Provenance",
                                  "Settings"]  # fmt: skip
    assert by_role["image"] == ["Loss", "Score: accuracy", "Learning rate", "Gradient norm", "Examples per second",
                                "Confusion matrix", "Reliability", "Length in tokens", "Score by length"]  # fmt: skip
    described = browser.run(
        "return [...document.querySelectorAll('figure')].map(f => f.querySelector('span').textContent)"
    )
    assert len(described) == len(by_role["image"]) and all(re.search(r"\d", text) for text in described)
    assert len(by_role["table"]) == browser.run("return document.querySelectorAll('table').length") > 10
    assert all(by_role["table"]) and all(by_role["region"])
    assert {"Classes, the lowest F1 first", "The confusion matrix as a table", "Reliability as a table"} <= set(
        by_role["table"]
    )
    assert {"precision", "recall", "support (rows)"} <= set(by_role["columnheader"])
    assert {"calm", "angry", "sad"} <= set(by_role["rowheader"])
    assert browser.run("return document.documentElement.lang") == "en"


def test_it_is_usable_by_keyboard(plain: Path, browser: Browser) -> None:
    browser.show(width=NARROW)
    browser.open(plain)
    browser.press("Tab", 9)
    assert browser.run("return document.activeElement.textContent") == "Skip to the verdict"
    assert browser.run("return document.activeElement.getBoundingClientRect().left") >= 0, "seen when it has the focus"
    browser.press("Enter", 13, "\r")
    assert browser.run("return location.hash") == "#verdict"
    seen: list[Any] = []
    for _ in range(120):
        browser.press("Tab", 9)
        here = browser.run(
            "const e = document.activeElement; return [e.tagName, e.getAttribute('aria-labelledby') || e.textContent, "
            "getComputedStyle(e).outlineStyle]"
        )
        if here[0] == "BODY":
            break
        seen.append(tuple(here))
    assert {outline for _, _, outline in seen} == {"solid"}, "the focus can be seen"
    regions = browser.run("return [...document.querySelectorAll('.scroll')].filter(e => !e.closest('details')).length")
    assert len([1 for tag, _, _ in seen if tag == "DIV"]) == regions
    assert len([1 for tag, _, _ in seen if tag == "SUMMARY"]) == browser.run(
        "return document.querySelectorAll('details').length"
    )
    browser.run("document.querySelector('summary').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.run("return document.querySelector('details').open") is True


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_colors_have_contrast(palette: Palette) -> None:
    """By the Web Content Accessibility Guidelines 2.2: text 4.5, lines of a picture 3."""
    for name, least in {"ink": 7, "muted": 4.5, "first": 4.5, "second": 3, "third": 3}.items():
        assert contrast(getattr(palette, name), palette.paper) >= least, name


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def luminance(color: str) -> float:
    channels = (int(color[i : i + 2], 16) / 255 for i in (1, 3, 5))
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("vision", ["deuteranopia", "protanopia", "tritanopia"])
def test_colors_are_distinguishable_without_seeing_all_colors(palette: Palette, vision: str) -> None:
    """Simulated after Machado, Oliveira and Fernandes (2009), full severity; the distance is that of CIELAB."""
    colors = (palette.first, palette.second, palette.third)
    for one, other in itertools.combinations(colors, 2):
        assert distance(seen_with(one, vision), seen_with(other, vision)) > 20, (one, other)


MACHADO = {
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def seen_with(color: str, vision: str) -> list[float]:
    """Linear red, green and blue."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return [min(1.0, max(0.0, sum(a * b for a, b in zip(row, linear, strict=True)))) for row in MACHADO[vision]]


def distance(one: list[float], other: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(lab(one), lab(other), strict=True)) ** 0.5


def lab(linear: list[float]) -> tuple[float, float, float]:
    r, g, b = linear
    x = (0.4124 * r + 0.3576 * g + 0.1805 * b) / 0.9505
    y = 0.2126 * r + 0.7152 * g + 0.0722 * b
    z = (0.0193 * r + 0.1192 * g + 0.9505 * b) / 1.089
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


def test_every_section_is_in_the_page_of_some_run(made: dict[str, Path]) -> None:
    there = {
        name for path in made.values() for name in re.findall(r'<h2 id="([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(there) == len(pages.SECTIONS)
