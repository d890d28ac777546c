"""manifest.json: where, when and with what code, packages and data a run was made.

Environment variables are not recorded: they may contain secrets.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from job.run.folder import RunFolder
from job.run.format import FORMAT, KEY
from job.runtime import contract, files
from job.runtime.package import ROOT

TOKEN_LIMIT = "max_tokens_per_device"
"""The lower limit with which a run continued after running out of memory."""
TOKEN_LIMIT_REQUESTED = "max_tokens_per_device_requested"
"""The setting with which it ran out of memory; null if it was unset."""
UPLOAD = "upload"
"""Where the model was uploaded to: {"repository", "requested", "revision", "commit"}."""
MAIN_BRANCH = "main"
PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "evaluate",
    "accelerate",
    "peft",
    "tokenizers",
    "numpy",
    "scikit-learn",
)


def new(
    *,
    seed: int,
    world_size: int,
    device: str,
    fingerprint: str,
    before: Mapping[str, Any],
    resumed_step: int | None = None,
) -> dict[str, Any]:
    """The manifest of a start.

    `before` is the manifest of the start that this one resumes, or empty; `resumed_step` is the step it resumes from.
    """
    return {
        KEY: FORMAT,
        "git": git_state(),
        "image": os.environ.get(contract.IMAGE_DIGEST),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "host": socket.gethostname(),
        "device": device,
        "world_size": world_size,
        "threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
        "dataset_fingerprint": fingerprint,
        "seed": seed,
        "started": before.get("started", files.utc_now()),
        "ended": None,
        "restarts": before.get("restarts", -1) + 1,
        "restart_steps": [*before.get("restart_steps", ()), *([] if resumed_step is None else [resumed_step])],
        "seconds": before.get("seconds", {}),
        **{key: before[key] for key in (TOKEN_LIMIT, TOKEN_LIMIT_REQUESTED) if key in before},
    }


def dataset_fingerprint(folder: RunFolder) -> str:
    """Identifies the data of a run: the rows of all its splits, in order."""
    return json.loads(folder.manifest.read_text(encoding="utf-8"))["dataset_fingerprint"]


def token_limit(folder: RunFolder, limit: int, requested: int | None) -> int:
    """`limit`, or the lower limit that this run recorded after running out of memory.

    Args:
        folder: of the run.
        limit: what `requested` gives on this device.
        requested: the setting. If the user has set it to another value since, for a larger GPU, that value counts.
    """
    known = json.loads(folder.manifest.read_text(encoding="utf-8"))
    kept = known.get(TOKEN_LIMIT)
    changed = requested is not None and requested != known.get(TOKEN_LIMIT_REQUESTED, requested)
    return limit if kept is None or changed else min(limit, kept)


def keep_token_limit(folder: RunFolder, limit: int, requested: int | None) -> None:
    """Record, for the next start, a limit lower than what was `requested`."""
    amend(folder, **{TOKEN_LIMIT: limit, TOKEN_LIMIT_REQUESTED: requested})


def amend(folder: RunFolder, **values: Any) -> None:
    """Add values that became known after the start of the run."""
    files.write_json(folder.manifest, {**json.loads(folder.manifest.read_text(encoding="utf-8")), **values})


@contextlib.contextmanager
def timed(folder: RunFolder, phase: str, main: bool) -> Iterator[None]:
    """Add the time that passes within to the manifest's "seconds" of this phase, over all starts of the run.

    The manifest must exist when the context is left; only the main process writes it.
    """
    begun = time.monotonic()
    yield
    if main:
        add_seconds(folder, phase, time.monotonic() - begun)


def add_seconds(folder: RunFolder, phase: str, seconds: float) -> None:
    """Likewise for a time that was measured. On a full disk it is not recorded: no reason to end a run."""
    with contextlib.suppress(OSError):
        before = json.loads(folder.manifest.read_text(encoding="utf-8")).get("seconds", {})
        amend(folder, seconds={**before, phase: round(before.get(phase, 0.0) + seconds, 3)})


def git_state() -> dict[str, Any] | None:
    """Commit of the code, whether it has local edits and, for a submitted snapshot, their diff; None without git."""
    snapshot = ROOT / contract.SNAPSHOT_STATE
    if snapshot.is_file():
        return json.loads(snapshot.read_text(encoding="utf-8"))
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != ROOT:
            return None  # a copy of the code inside another repository
        commit = _git("rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("GIT_") or "CONFIG" in name}
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10, env=environ)
    return done.stdout.strip()
