"""What the README says of the tree and the commands is true of the disk."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from job import config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def listed(folder: str) -> set[str]:
    """Entries below `folder/` in the README's tree."""
    tree = README[README.index("## The code") :]
    block = re.search(rf"^{folder}/ .*\n((?:  \S.*\n)+)", tree, re.MULTILINE)
    assert block, f"the tree has no {folder}/"
    return {line.split()[0].rstrip("/") for line in block[1].splitlines()}


@pytest.mark.parametrize("folder", ["job", "launch"])
def test_the_tree_lists_every_room_and_no_other(folder: str) -> None:
    hidden = {"__init__.py", "__main__.py", "__pycache__", "py.typed"}
    there = {path.name for path in (ROOT / folder).iterdir()} - hidden
    assert listed(folder) == there


def test_every_flag_the_readme_names_is_one() -> None:
    launchers = {"nproc-per-node", "help"}
    named = set(re.findall(r"--([a-z][\w-]+)", README)) - launchers
    flags = set(config.fields())
    assert {name if name in flags else name.removeprefix("no_") for name in named} <= flags


def test_every_target_the_readme_names_is_one() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"`?make ([a-z-]+)", README)) <= targets


def test_every_relative_link_leads_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
