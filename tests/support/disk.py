"""In which order files reach the disk and get their names: a killed process cannot show it, only a power failure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


def disk_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """The list to which each fsync adds its file or folder, and each rename the new name, from now on."""
    calls: list[tuple[str, Path]] = []
    fsync = os.fsync

    def flushed(handle: int) -> None:
        calls.append(("fsync", Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", flushed)
    for name in ("rename", "replace"):
        monkeypatch.setattr(os, name, _recorded(getattr(os, name), calls))
    return calls


def _recorded(rename: Any, calls: list[tuple[str, Path]]) -> Any:
    def renamed(source: Any, target: Any, **where: Any) -> None:
        calls.append(("rename", Path(target)))
        rename(source, target, **where)

    return renamed
