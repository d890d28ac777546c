"""The version of what a run leaves in its folder: a run of another version is not resumed.

It may have read the data, cut the batches or drawn random numbers in another way: resumed, it would end with a result
that neither version gives.
"""

from __future__ import annotations

import json
from pathlib import Path

FORMAT = 2
"""Raised by 1 when a run of the version before can no longer be resumed to the result of an uninterrupted one."""
KEY = "format"


def written(manifest: Path) -> int | None:
    """The format of the run whose manifest.json this is; None where there is none that can be read."""
    try:
        found = json.loads(manifest.read_text(encoding="utf-8")).get(KEY, 1)  # the first version did not write it
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, int) else None


def difference(manifest: Path) -> str | None:
    """How the run's format differs from this version's, in words; None where it does not."""
    format = written(manifest)
    if format is None or format == FORMAT:
        return None
    return f"{'an older' if format < FORMAT else 'a newer'} version of Muster (format {format}, this one has {FORMAT})"
