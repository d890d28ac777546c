"""An nvidia-smi that runs a given shell script."""

from __future__ import annotations

from pathlib import Path

import pytest

TWO = "echo 'GPU 0: H200 (UUID: GPU-1)'; echo 'GPU 1: H200 (UUID: GPU-2)'"
MISMATCH = "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"
"""As after an update of the driver, until the next reboot."""


def install(script: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put it first on PATH."""
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
    (folder / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
