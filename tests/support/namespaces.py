"""Programs in namespaces of their own: without a network, or with mounts that nobody else sees."""

from __future__ import annotations

import os
import subprocess

import pytest


def command(kind: str) -> tuple[str, ...]:
    """The command that runs a program in a namespace of this kind, `net` or `mount`.

    If this user may not create one, the test is skipped, or fails in continuous integration.
    """
    words = ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), f"--{kind}")
    tried = subprocess.run([*words, "true"], capture_output=True, text=True)
    if tried.returncode:
        tell = pytest.fail if os.environ.get("CI") else pytest.skip
        tell(f"no namespace can be made here: {tried.stderr.strip()}")
    return words
