"""The cache folders of libraries, resolved as the libraries do."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from job.errors import Refused

NAMED = re.compile(
    r"HF_\w*_CACHE|HUGGINGFACE_HUB_CACHE|TORCH_HOME|TORCHINDUCTOR_CACHE_DIR|TRITON_(CACHE_DIR|HOME)|CUDA_CACHE_PATH"
)
"""Variables that set a cache folder, which may be outside HF_HOME."""


def home(environ: Mapping[str, str]) -> Path:
    """HF_HOME, or its default."""
    cache = Path(environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return _absolute(environ.get("HF_HOME") or cache)


def hub(environ: Mapping[str, str]) -> Path:
    """The cache of downloaded models and datasets."""
    return _absolute(environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or home(environ) / "hub")


def all_folders(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """HF_HOME first, then the folders set by variables."""
    others = {_absolute(value) for name, value in environ.items() if NAMED.fullmatch(name) and value}
    return (home(environ), *sorted(others))


def _absolute(path: str | Path) -> Path:
    try:
        return Path(os.path.expandvars(path)).expanduser().absolute()
    except RuntimeError:
        raise Refused(f"there is no home for {path}: set HOME, or HF_HOME to a folder for downloads") from None
