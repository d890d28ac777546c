"""For the tests of checkpoints: a folder for them, in that of a run."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """The checkpoints folder of a run; it does not exist yet."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def messages(logged: list[str]) -> list[str]:
    return logged
