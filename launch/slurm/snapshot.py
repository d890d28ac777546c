"""The code that was submitted is the code that runs: the checkout's tracked files, with local edits, copied aside.

A job waits in a queue for hours and may start again days later; the checkout is edited meanwhile. Files that git does
not track are left out and named, since there is no telling results from sources among them. submitit's RsyncSnapshot
was refused: it clones the history for each submission and fails where a tracked file was deleted.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from job.errors import Refused
from job.runtime.contract import SNAPSHOT_STATE

SECRET = ".env"


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
    diff = _git(root, "diff", "--binary", "HEAD", "--", ".", f":(exclude,glob)**/{SECRET}")
    return Snapshot(root, _git(root, "rev-parse", "HEAD").strip(), tuple(files), tuple(untracked), diff)


def take(snapshot: Snapshot, folder: Path) -> None:
    """Copy the files into `folder`, which is not there yet, and write the edits beside it."""
    for name in snapshot.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(snapshot.root / name, target)
    patch = folder.with_name("local.diff")
    if snapshot.diff:
        patch.write_text(snapshot.diff, encoding="utf-8", errors="surrogateescape")
    state = {"commit": snapshot.commit, "dirty": bool(snapshot.diff), "diff": str(patch) if snapshot.diff else None}
    (folder / SNAPSHOT_STATE).write_text(json.dumps(state) + "\n", encoding="utf-8")


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
    try:
        done = subprocess.run(command, capture_output=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", b"") or b""
        reason = (said.decode(errors="replace").strip() or str(error)).splitlines()[0]
        raise Refused(f"the code in {root} cannot be read by git: {reason}") from None
    return done.stdout.decode(errors="surrogateescape")
