"""The format version of a run folder: a run with another format is not resumed.

A version with another format may read the data, form batches or draw random numbers differently. A run resumed across
versions would have a result that neither version gives.
"""

from __future__ import annotations

import json
from pathlib import Path

FORMAT = 3
"""Incremented when resuming a run of the previous version no longer gives the result of an uninterrupted run."""
KEY = "format"


def written(manifest: Path) -> int | None:
    """The format recorded in a manifest.json; None if the file is missing or cannot be read."""
    try:
        format = json.loads(manifest.read_text(encoding="utf-8")).get(KEY, 1)  # format 1 did not record it
    except (OSError, ValueError, AttributeError):
        return None
    return format if isinstance(format, int) else None


def difference(manifest: Path) -> str | None:
    """A description of how the run's format differs from this version's; None if it does not."""
    format = written(manifest)
    if format is None or format == FORMAT:
        return None
    return f"{'an older' if format < FORMAT else 'a newer'} version of Muster (format {format}, this one has {FORMAT})"
