"""Where this code and the files that come with it are: a checkout, a snapshot, an installed wheel or the image."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

JOB = Path(str(resources.files("job"))).resolve()
"""The folder of the package `job`: entrypoints, recipes/, metrics/."""
ROOT = JOB.parent
"""The folder of both packages, job and launch."""
