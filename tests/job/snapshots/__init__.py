"""Texts that users see, recorded in this folder."""

from pathlib import Path

from tests.support import golden

HERE = Path(__file__).parent


def check(name: str, text: str) -> None:
    """Fail unless the file `name` holds exactly `text`."""
    golden.check(HERE / name, text)
