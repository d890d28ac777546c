"""The code that was submitted is the code that runs: the checkout's tracked files, with local edits, copied aside.

A job waits in a queue for hours and may start again days later; the checkout is edited meanwhile. Files that git does
not track are left out and named, since there is no telling results from sources among them. submitit's RsyncSnapshot
was refused: it clones the history for each submission and fails where a tracked file was deleted.
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
"""What the user's configuration of git may have set otherwise: `local.diff` is to be one that `git apply` takes."""


@dataclass(frozen=True)
class Snapshot:
    """What would be copied."""

    root: Path
    """The checkout."""
    commit: str | None
    """None outside a git checkout."""
    files: tuple[str, ...]
    """Relative to the root, in order."""
    untracked: tuple[str, ...]
    """Left out."""
    diff: str
    """The local edits, as `git diff HEAD` shows them."""

    def __str__(self) -> str:
        edited = ", with local edits" if self.diff else ""
        return f"{len(self.files)} files of {self.root} at {(self.commit or 'no commit')[:12]}{edited}"


def look(root: Path) -> Snapshot:
    """What a snapshot of `root` would hold; .env never is part of it.

    Raises:
        Refused: git is missing or fails on a checkout.
    """
    if not (root / ".git").exists():
        return _without_git(root)
    files = [name for name in _listed(root) if (root / name).is_file() and Path(name).name != SECRET]
    untracked = _listed(root, "--others", "--exclude-standard")
    diff = _git(root, "diff", *DIFF, "HEAD", "--", ".", f":(exclude,glob)**/{SECRET}")
    return Snapshot(root, _git(root, "rev-parse", "HEAD").strip(), tuple(files), tuple(untracked), diff)


def take(snapshot: Snapshot, folder: Path) -> None:
    """Copy the files into `folder`, which does not exist yet, and write the edits next to it.

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
    """All there is of an installed copy; a snapshot, from which a job submits another, still knows its origin."""
    code = (path for name in ("job", "launch") for path in (root / name).rglob("*"))
    kept = (path for path in code if path.is_file() and "__pycache__" not in path.parts)
    state = json.loads((root / SNAPSHOT_STATE).read_text(encoding="utf-8")) if (root / SNAPSHOT_STATE).is_file() else {}
    diff = Path(state["diff"]).read_text(encoding="utf-8", errors="surrogateescape") if state.get("diff") else ""
    return Snapshot(root, state.get("commit"), tuple(sorted(str(p.relative_to(root)) for p in kept)), (), diff)


def _listed(root: Path, *flags: str) -> list[str]:
    return sorted(filter(None, _git(root, "ls-files", "-z", *flags).split("\0")))


def _git(root: Path, *words: str) -> str:
    command = ["git", "-C", str(root), *words]
    # GIT_DIR and the like would name another repository; configuration may say that this one is safe to use.
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or "CONFIG" in name}
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=60, env=environ)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or b""
        reason = " ".join(said.decode(errors="replace").split()) or str(error)
        raise Refused(f"the code in {root} cannot be read by git: {reason}") from None
    return done.stdout.decode(errors="surrogateescape")
