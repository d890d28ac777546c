"""Where the tables that `datasets` makes are cached: in a folder for each content of the files.

The library's own key is the files' paths and times. A file that `tar`, `rsync -t` or an object store replaces may have
the time of the old one, and its old rows would be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from job.runtime import files


def folder(digests: Sequence[str]) -> str:
    """The cache folder for tables made of the files with these digests."""
    import datasets

    return str(Path(datasets.config.HF_DATASETS_CACHE) / "muster" / files.digest(list(digests))[:32])
