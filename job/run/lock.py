"""One owner of a run folder at a time.

A POSIX lock, which the kernel releases when the process ends, so that a killed run leaves none behind. It works over
NFS. Some shared file systems grant such locks to everybody; there, status.json decides: if its heartbeat changes while
we watch, a run is active. This needs no synchronised clocks. A lock file with a timestamp would survive a crash, and
never expire on a machine whose clock was set back.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import Any

from job.errors import Refused
from job.runtime import contract, files

HEARTBEAT_SECONDS = 5.0
WATCH_SECONDS = 4 * HEARTBEAT_SECONDS
"""How long to watch for a new heartbeat of a run that has not recorded its end."""
REQUEUE_SECONDS = 30.0
"""How long a requeued job waits for its previous start to end."""

_held: dict[Path, int] = {}


def owner() -> str:
    """The owner's identity: set by the launcher (unchanged by a requeue), else host and process id."""
    return os.environ.get(contract.OWNER) or f"{socket.gethostname()}:{os.getpid()}"


def is_requeue(folder: Path) -> bool:
    """Whether the last run in `folder` has this owner: the job was requeued by its launcher."""
    return owner().startswith(contract.SLURM) and read_status(folder).get("owner") == owner()


def acquire(folder: Path) -> None:
    """Lock `folder` until `release` or the end of this process.

    Raises:
        Refused: another run is active there.
    """
    if folder in _held:
        return
    handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    until = time.monotonic() + (REQUEUE_SECONDS if is_requeue(folder) else 0.0)
    while (locked := _locked(handle)) is False:
        if time.monotonic() >= until:
            os.close(handle)
            raise Refused(_held_by(folder))
        time.sleep(0.2)
    _held[folder] = handle
    if _may_be_active(read_status(folder), locked=locked is True) and is_active(folder):
        release(folder)
        raise Refused(_held_by(folder))


def release(folder: Path) -> None:
    """Unlock `folder`, if it is locked."""
    handle = _held.pop(folder, None)
    if handle is not None:
        os.close(handle)


def _locked(handle: int) -> bool | None:
    """Whether we got the lock; None on a file system without locks."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _may_be_active(status: dict[str, Any], locked: bool) -> bool:
    """Whether a run may be active. Not if it has our owner, or if we got the lock and it was on this host."""
    held_by = str(status.get("owner", ""))
    ended = held_by == owner() or (locked and held_by.startswith(f"{socket.gethostname()}:"))
    return status.get("state") == "RUNNING" and not ended


def is_active(folder: Path) -> bool:
    """Whether the run in `folder` writes a new heartbeat within 20 seconds."""
    before, until = read_status(folder), time.monotonic() + WATCH_SECONDS
    while time.monotonic() < until:
        time.sleep(HEARTBEAT_SECONDS / 5)
        now = read_status(folder) or before
        if now.get("state") != "RUNNING":
            return False
        if now.get("heartbeat") != before.get("heartbeat"):
            return True
    return False


def read_status(folder: Path) -> dict[str, Any]:
    """The content of status.json in `folder`; {} if it cannot be read."""
    return files.read_json(folder / contract.STATUS)


def _held_by(folder: Path) -> str:
    status = read_status(folder)
    by = f" ({status['owner']})" if status.get("owner") else ""
    return f"another run{by} is active in {folder}: wait until it ends, or choose another --output_dir"
