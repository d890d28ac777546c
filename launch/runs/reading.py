"""Reads files that others write: any may be missing, incomplete or from another version, and counts as missing then."""

from __future__ import annotations

import contextlib
import math
import re
import stat
from pathlib import Path
from typing import Any, cast

import yaml

YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NESTED = re.compile(r"([\[{]\s*){9}|(- ){9}")
"""Deep nesting, which no config.yaml of ours has, and which crashes the fast loader."""


def is_file(path: Path) -> bool:
    """Path.is_file, which raises if the name is too long or a folder above may not be entered: False then."""
    return stat.S_ISREG(mode(path))


def is_folder(path: Path) -> bool:
    """Path.is_dir, which raises if the name is too long or a folder above may not be entered: False then."""
    return stat.S_ISDIR(mode(path))


def mode(path: Path) -> int:
    """The file mode of a path; 0 if there is no such path, or it cannot be reached."""
    with contextlib.suppress(OSError, ValueError):  # ValueError: a name with a zero byte
        return path.stat().st_mode
    return 0


def number(value: object) -> float | None:
    """A finite number in a JSON file; None for anything else, as for the NaN that some programs write."""
    if type(value) not in (int, float):
        return None
    with contextlib.suppress(OverflowError):  # an integer with hundreds of digits
        converted = float(cast(float, value))
        return converted if math.isfinite(converted) else None
    return None


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a config.yaml; empty if it cannot be read."""
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        text = path.read_text(encoding="utf-8")
        if NESTED.search(text):
            return {}
        value = yaml.load(text, Loader=YAML)
        return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}
    return {}
