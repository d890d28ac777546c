"""Texts that users see, kept whole beside this file, so that a diff shows every change of them.

Written anew by UPDATE_SNAPSHOTS=1, never by an ordinary run: a missing file fails.
"""

import os
from pathlib import Path

HERE = Path(__file__).parent


def check(name: str, text: str) -> None:
    """Fail unless the file `name` holds exactly `text`."""
    path = HERE / name
    if os.environ.get("UPDATE_SNAPSHOTS") == "1":
        path.write_bytes(text.encode())
    assert path.is_file(), f"{path} is missing: write it with UPDATE_SNAPSHOTS=1 and read it before it is committed"
    assert text == path.read_bytes().decode(), f"{path} differs: if that is meant, write it with UPDATE_SNAPSHOTS=1"
