"""Dataset folders: whether `save_to_disk` wrote one, and whether `datasets` finds the files of another."""

from __future__ import annotations

import glob
from pathlib import Path

from job.errors import Refused

SAVED = ("dataset_dict.json", "state.json")
"""Files that `save_to_disk` writes: the first for a DatasetDict, the second for a Dataset, which is used as `train`."""


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return any((folder / name).is_file() for name in SAVED)


def refuse_pattern(folder: Path) -> None:
    """Refused for a folder whose path `datasets` would take for a pattern: it would read another folder's files."""
    path = folder.resolve()
    character = next((character for character in str(path) if glob.has_magic(character)), None)
    if character is not None:
        raise Refused(f"the path of the dataset folder {path} contains {character}, which is read as a pattern: use a "
                      "path without it")  # fmt: skip
