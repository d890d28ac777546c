"""docs/models.md lists the tested families."""

import re
from pathlib import Path

from tests.models.families import FAMILIES, table
from tests.support import golden

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
TABLE = re.compile(r"^\| family \|.*?(?=\n\n|\Z)", re.MULTILINE | re.DOTALL)


def test_the_page_has_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    if golden.updating():
        PAGE.write_text(TABLE.sub(lambda _: table(), text.rstrip()) + "\n", encoding="utf-8")
    match = TABLE.search(PAGE.read_text(encoding="utf-8"))
    assert match is not None and match[0].rstrip() == table(), f"write it with {golden.UPDATE}"


def test_families_are_many_and_unique() -> None:
    assert len({family.name for family in FAMILIES}) == len(FAMILIES) >= 50
    assert sum(family.stopped for family in FAMILIES) >= 12
