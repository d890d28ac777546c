"""Recorded texts: a diff of their files shows every change. `UPDATE_GOLDEN=1 pytest ...` writes them again."""

import os
from pathlib import Path

UPDATE = "UPDATE_GOLDEN=1"


def updating() -> bool:
    """Whether the files are to be written; never in an ordinary run."""
    return os.environ.get("UPDATE_GOLDEN") == "1"


def check(path: Path, text: str) -> None:
    """Fail unless the file holds exactly `text`."""
    if updating():
        path.write_bytes(text.encode())
    assert path.is_file(), f"{path} is missing: write it with {UPDATE} and read it before it is committed"
    assert text == path.read_bytes().decode(), f"{path} differs: if that is meant, write it with {UPDATE}"
