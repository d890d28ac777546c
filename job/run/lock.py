"""One owner of a run folder at a time.

The lock is the kernel's (POSIX, over NFS too): it ends with the process that holds it, so a killed run leaves none
behind. Some shared file systems grant such locks to everybody; there, status.json decides: a heartbeat that changes
while it is watched belongs to an active run. No two clocks need to agree for that. A lock file with a time in it would
be left behind by a crash, and be valid for ever on a clock that was set back.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from pathlib import Path
from typing import Any

from job.errors import Refused
from job.runtime import contract

HEARTBEAT_SECONDS = 5.0
WATCH_SECONDS = 4 * HEARTBEAT_SECONDS
"""How long a run without a recorded end is watched for a new heartbeat."""
SUCCESSION_SECONDS = 30.0
"""How long the same owner's next start waits for the one before it to end."""

_held: dict[Path, int] = {}


def owner() -> str:
    """Identity of this run: the launcher's name for it (the same after a requeue), else host and process."""
    return os.environ.get(contract.OWNER) or f"{socket.gethostname()}:{os.getpid()}"


def succeeds(folder: Path) -> bool:
    """Whether the last run in `folder` was this one: a job that was requeued by its launcher."""
    return contract.OWNER in os.environ and _status(folder).get("owner") == owner()


def take(folder: Path) -> None:
    """Hold `folder` until `release` or the end of this process.

    Raises:
        Refused: another run is active there.
    """
    if folder in _held:
        return
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    until = time.monotonic() + (SUCCESSION_SECONDS if succeeds(folder) else 0.0)
    while (locked := _locked(handle)) is False:
        if time.monotonic() >= until:
            os.close(handle)
            raise Refused(_taken(folder))
        time.sleep(0.2)
    _held[folder] = handle
    if _may_live(_status(folder), proven=locked is True) and moves(folder):
        release(folder)
        raise Refused(_taken(folder))


def release(folder: Path) -> None:
    """Give `folder` up; nothing where it is not held."""
    handle = _held.pop(folder, None)
    if handle is not None:
        os.close(handle)


def _locked(handle: int) -> bool | None:
    """Whether the lock is ours; None on a file system that has none."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _may_live(status: dict[str, Any], proven: bool) -> bool:
    """A lock proves that no run of this host is active there; the owner's own next start needs no proof."""
    held_by = str(status.get("owner", ""))
    ended = held_by == owner() or (proven and held_by.startswith(f"{socket.gethostname()}:"))
    return status.get("state") == "RUNNING" and not ended


def moves(folder: Path) -> bool:
    """Whether the run in `folder` writes a new heartbeat; watched for up to 20 seconds."""
    before, until = _status(folder), time.monotonic() + WATCH_SECONDS
    while time.monotonic() < until:
        time.sleep(HEARTBEAT_SECONDS / 5)
        now = _status(folder) or before
        if now.get("state") != "RUNNING":
            return False
        if now.get("heartbeat") != before.get("heartbeat"):
            return True
    return False


def _status(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((folder / contract.STATUS).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def _taken(folder: Path) -> str:
    status = _status(folder)
    by = f" ({status['owner']})" if status.get("owner") else ""
    return f"another run{by} is active in {folder}: wait until it ends, or choose another --output_dir"
