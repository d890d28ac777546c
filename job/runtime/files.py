"""Files: written under a temporary name, flushed to disk, then renamed, so that each is complete or absent; digests."""

from __future__ import annotations

import contextlib
import datetime
import errno
import glob
import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
"""Of a full disk, or one that cannot be written any more."""


def write_text(path: Path, text: str) -> None:
    """Replace a file atomically: a reader sees the old text or the new one, never a part."""
    publish(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as JSON, atomically; NaN and infinity, which JSON does not have, raise ValueError.

    Bytes of a path that are not UTF-8 are escaped as surrogates.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(path, text.encode(errors="backslashreplace").decode())


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; {} if the file is missing, cannot be read or holds something else."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    return {}


def finite(value: Any) -> Any:
    """`value` with NaN and infinity as None, which JSON can hold: a correlation of constants is no number."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def publish(path: Path, write: Callable[[Path], Any]) -> None:
    """Let `write` create a file or folder under a temporary name, then rename it to `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    remove(temporary)
    try:
        write(temporary)
        for made in temporary.rglob("*"):
            flush(made)
        flush(temporary)
        if temporary.is_dir():
            remove(path)
        temporary.replace(path)
    finally:
        remove(temporary)


def half_written(folder: Path, names: Collection[str]) -> list[Path]:
    """What `publish` left in `folder` of files and folders with these names where it was killed."""
    return [path for path in folder.glob(".*.*") if path.suffix[1:].isdigit() and path.stem[1:] in names]


def flush(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a file, link or folder if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def set_default_mode(folder: Path) -> None:
    """Give the files below `folder` the mode of newly created files: safetensors makes its files private.

    The mode is read off a temporary file: the umask can only be read by changing it, which other threads would see.
    """
    probe = folder / f".mode-{os.getpid()}"
    probe.touch()
    mode = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file():  # a folder, as of a tokenizer's chat templates, could not be entered with a file's mode
            path.chmod(mode)


def sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """64 hex digits that identify a JSON value; the order of a mapping's keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def is_pattern(name: str) -> bool:
    """Whether a name is a glob pattern and not the exact name of a file."""
    return glob.has_magic(name) and not os.path.exists(name)  # noqa: PTH110 (Path's raises for a name too long)


def utc_now(precision: str = "seconds") -> str:
    """The time in UTC, ISO 8601."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec=precision)
