"""Programs in namespaces of their own: without a network, or with mounts that nobody else sees."""

from __future__ import annotations

import os
import subprocess

import pytest


def command(kind: str) -> tuple[str, ...]:
    """The words before a program's that give it a namespace of this kind, `net` or `mount`.

    Where this user may not make one the test is skipped, in continuous integration it fails.
    """
    words = ("unshare", *(() if os.geteuid() == 0 else ("--map-root-user",)), f"--{kind}")
    tried = subprocess.run([*words, "true"], capture_output=True, text=True)
    if tried.returncode:
        tell = pytest.fail if os.environ.get("CI") else pytest.skip
        tell(f"no namespace can be made here: {tried.stderr.strip()}")
    return words
