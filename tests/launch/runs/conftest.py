"""A folder of runs, and stand-ins for Slurm's programs in front of PATH."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.launch.runs import synthetic
from tests.launch.runs.synthetic import StandIns


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Nothing of Slurm is found unless the test adds it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for tool in ("bash", "sleep", "cat", "touch"):
        source = next(p for p in os.environ["PATH"].split(":") if Path(p, tool).exists())
        (folder / tool).symlink_to(Path(source, tool))
    monkeypatch.setenv("PATH", str(folder))
    return StandIns(folder)


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder runs/ of the working directory, read at the time NOW."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "time", lambda: synthetic.NOW)
    folder = Path("runs")
    folder.mkdir()
    return folder
