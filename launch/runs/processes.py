"""Identifies processes by id and start time, because ids are reused; and containers by name."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path


def started(pid: int) -> str:
    """A text that identifies this process among all with the same id, also across reboots; empty if it does not
    exist."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
            # "pid (name) state ...", where the name may contain anything; the start time is field 22
            fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
            return "" if fields[0] in "ZX" else f"{boot}:{fields[19]}"
        return ""
    ps = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return ps.stdout.strip()


def is_running(pid: int, start: str) -> bool:
    """Whether process `pid` runs and is the one for which `started` returned `start`."""
    return bool(start) and started(pid) == start


def variable(pid: int, name: str) -> str | None:
    """An environment variable that process `pid` was started with; None if it has none, or cannot be read."""
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0"):
            if entry.startswith(f"{name}="):
                return entry.removeprefix(f"{name}=")
    return None


def container_runs(name: str) -> bool | None:
    """Whether docker has a running container with this name; None if docker does not answer."""
    ids = _docker("ps", "--quiet", f"--filter=name=^/{name}$")
    return None if ids is None else bool(ids)


def terminate_container(name: str) -> str:
    """Send SIGTERM to a container; returns an error message, or an empty string."""
    return "" if _docker("kill", "--signal=TERM", name) is not None else f"docker has no running container {name}"


def _docker(*arguments: str) -> str | None:
    """The output of docker; None for an error."""
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
