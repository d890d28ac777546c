"""A copy of the code for each submission: the checkout's tracked files, with local edits.

A job waits in the queue for hours and may restart days later, while the checkout is edited. Files that git does not
track are left out, with a warning, because they may be results as well as sources. Alternative considered: submitit's
RsyncSnapshot, which clones the history for each submission and fails if a tracked file was deleted.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from job.errors import Refused
from job.runtime.contract import SNAPSHOT_STATE

SECRET = ".env"
DIFF = (
    *("--binary", "--full-index", "--no-ext-diff", "--no-textconv", "--no-color", "--no-renames", "--no-relative"),
    *("--src-prefix=a/", "--dst-prefix=b/", "--unified=3", "--inter-hunk-context=0", "--submodule=short"),
    *("--ignore-submodules=none", "-O/dev/null"),
)
"""Overrides the user's git configuration, so that `git apply` accepts `local.diff`."""


@dataclass(frozen=True)
class Snapshot:
    """The files to copy, and the state of their checkout."""

    root: Path
    """The checkout."""
    commit: str | None
    """None outside a git checkout."""
    files: tuple[str, ...]
    """Relative to the root, in order."""
    untracked: tuple[str, ...]
    """Files that git does not track; they are not copied."""
    diff: str
    """The local edits, as `git diff HEAD` shows them."""

    def __str__(self) -> str:
        edited = ", with local edits" if self.diff else ""
        return f"{len(self.files)} files of {self.root} at {(self.commit or 'no commit')[:12]}{edited}"


def describe(root: Path) -> Snapshot:
    """The snapshot of `root` as it is now; .env is never part of it.

    Raises:
        Refused: git is missing or fails on a checkout.
    """
    if not (root / ".git").exists():
        return _without_git(root)
    files = [name for name in _listed(root) if (root / name).is_file() and Path(name).name != SECRET]
    untracked = _listed(root, "--others", "--exclude-standard")
    diff = _git(root, "diff", *DIFF, "HEAD", "--", ".", f":(exclude,glob)**/{SECRET}")
    return Snapshot(root, _git(root, "rev-parse", "HEAD").strip(), tuple(files), tuple(untracked), diff)


def copy(snapshot: Snapshot, folder: Path) -> None:
    """Copy the files to `folder`, which must not exist, and write the local edits next to it as local.diff.

    Raises:
        Refused: a file cannot be read.
        OSError: the copy cannot be written.
    """
    for name in snapshot.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(_content(snapshot.root / name))
        shutil.copymode(snapshot.root / name, target)
    patch = folder.with_name("local.diff")
    if snapshot.diff:
        patch.write_text(snapshot.diff, encoding="utf-8", errors="surrogateescape")
    state = {"commit": snapshot.commit, "dirty": bool(snapshot.diff), "diff": str(patch) if snapshot.diff else None}
    (folder / SNAPSHOT_STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from None


def _without_git(root: Path) -> Snapshot:
    """A snapshot of an installed package, or of another snapshot, whose commit and diff are kept."""
    paths = (path for name in ("job", "launch") for path in (root / name).rglob("*"))
    code = (path for path in paths if path.is_file() and "__pycache__" not in path.parts)
    state = json.loads((root / SNAPSHOT_STATE).read_text(encoding="utf-8")) if (root / SNAPSHOT_STATE).is_file() else {}
    diff = Path(state["diff"]).read_text(encoding="utf-8", errors="surrogateescape") if state.get("diff") else ""
    return Snapshot(root, state.get("commit"), tuple(sorted(str(p.relative_to(root)) for p in code)), (), diff)


def _listed(root: Path, *flags: str) -> list[str]:
    return sorted(filter(None, _git(root, "ls-files", "-z", *flags).split("\0")))


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    # GIT_DIR and similar variables would select another repository; GIT_CONFIG_* may mark this one as safe.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or "CONFIG" in name}
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=60, env=environ)
    except (OSError, subprocess.SubprocessError) as error:
        stderr = getattr(error, "stderr", b"") or b""
        reason = " ".join(stderr.decode(errors="replace").split()) or str(error)
        raise Refused(f"the code in {root} cannot be read by git: {reason}") from None
    return done.stdout.decode(errors="surrogateescape")
