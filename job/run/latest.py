"""runs/latest: a link to the training run in runs/ that was started last."""

from __future__ import annotations

import os
from pathlib import Path


def name(run: Path) -> str | None:
    """The name of the run that the link `latest`, next to the folder `run`, points to; None without the link."""
    try:
        return str(_path(run).readlink())
    except OSError:
        return None


def point_to(run: Path) -> None:
    """Point runs/latest to the folder `run`, if it is in runs/; those of a sweep are one level below."""
    run = run.resolve()
    if run.parent == Path("runs").resolve():
        link(run, run.name)


def link(run: Path, name: str | None) -> None:
    """Point the link next to `run` to the run `name`, or remove it if `name` is None. Failing to do so is no error."""
    path = _path(run)
    aside = path.with_name(f".latest-{os.getpid()}")
    try:
        if name is None:
            path.unlink()
        else:
            aside.symlink_to(name)
            aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)


def _path(run: Path) -> Path:
    return run.resolve().with_name("latest")  # --output_dir may be the link itself
