"""What the doctor's job left in its folder, as findings: of each node before Python, then of each rank."""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launch.doctor.checks import (
    CLOCK,
    CLOCK_REMEDY,
    CLOCK_SECONDS,
    ENVIRONMENT,
    FAILED,
    FOLDER,
    OK,
    Finding,
)
from launch.doctor.login import local_disk
from launch.slurm import client

NO_FOLDER, BAD_NODE = 91, 92
"""Exit codes of the batch script."""
LATE = 10.0
"""Seconds in which a network file system shows what a node has written."""
PROBED = {
    "no-folder": (FOLDER, "{reason} is not on this node", "work in a folder of a file system that the nodes share"),
    "other-folder": (FOLDER, "{reason} is another folder on this node", "work in a folder that the nodes share"),
    "read-only": (FOLDER, "the folder of the runs cannot be written here: {reason}",
                  "work in a folder that the nodes may write"),
    "no-python": (ENVIRONMENT, "the Python environment {reason} is not on this node",
                  "make the environment (make setup) in a folder that the nodes share, or use an image"),
    "no-apptainer": (ENVIRONMENT, "apptainer is not on PATH ({reason}) on this node",
                     "load its module with --setup, or ask an administrator"),
    "no-image": (ENVIRONMENT, "the image {reason} is not on this node",
                 "set --image (MUSTER_IMAGE) to a file that the nodes see"),
}  # fmt: skip


def read(folder: Path, job: str, processes: int, submitted: float) -> list[Finding]:
    """The findings of a job that has ended.

    Args:
        folder: the doctor's own.
        job: its id.
        processes: ranks on all nodes.
        submitted: seconds since the epoch, on this machine.
    """
    code, host = client.exit_code(job)
    if code == NO_FOLDER:
        return [Finding(FOLDER.name, FAILED, f"{folder.parent} is not on this node{local_disk(folder)}",
                        "work in a folder of a file system that the nodes share", host)]  # fmt: skip
    _await(folder, lambda: _has_said_why(folder, code) if code else len(_ranks(folder)) == processes)
    if not (folder / "batch.log").exists():
        return [_unseen(folder, host)]
    found = list(_probed(folder))
    return found if _failed(found) else [*found, *of_ranks(folder, submitted, code)]


def of_ranks(folder: Path, submitted: float, code: int) -> list[Finding]:
    """What the ranks found; where none has said anything, why, by the logs and the exit code."""
    return [*_from_ranks(folder, submitted), *_before_python(folder, code)]


def _has_said_why(folder: Path, code: int) -> bool:
    """Whether a job that failed has left a reason."""
    if code == BAD_NODE:
        return (folder / "nodes.txt").exists()
    return bool(_ranks(folder)) or "muster: " in _text(folder / "batch.log")


def _text(path: Path) -> str:
    """What a file holds; nothing where it is not there (yet)."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _await(folder: Path, condition: Callable[[], bool]) -> None:
    """A network file system may be late, and remembers that a file was not there until its folder is listed."""
    until = time.monotonic() + LATE
    while not condition() and time.monotonic() < until:
        time.sleep(0.5)
        os.listdir(folder)  # noqa: PTH208


def _failed(found: list[Finding]) -> bool:
    return any(finding.state == FAILED for finding in found)


def _probed(folder: Path) -> Iterator[Finding]:
    """What the shell found on each node."""
    for line in _text(folder / "nodes.txt").splitlines():
        node, what, reason = [*line.split("|", 2), "", ""][:3]
        if what in PROBED:
            check, detail, remedy = PROBED[what]
            if check == ENVIRONMENT:
                yield Finding(FOLDER.name, OK, _shared(folder), place=node)
            yield Finding(check.name, FAILED, detail.format(reason=reason), remedy, node)
        elif what == "ok":
            yield _seen(folder, node)


def _seen(folder: Path, node: str) -> Finding:
    """What a node wrote is to be seen here too."""
    mark = folder / f"seen-by-{node}"
    _await(folder, mark.exists)
    if mark.exists():
        return Finding(FOLDER.name, OK, _shared(folder), place=node)
    return _unseen(folder, node)


def _unseen(folder: Path, node: str) -> Finding:
    return Finding(FOLDER.name, FAILED, f"what it writes into {folder.parent} is not to be seen elsewhere",
                   "work in a folder of a file system that the nodes share", node)  # fmt: skip


def _shared(folder: Path) -> str:
    return f"{folder.parent} is visible and writable"


def _ranks(folder: Path) -> list[dict[str, Any]]:
    found = []
    for path in sorted(folder.glob("rank-*.json")):
        with contextlib.suppress(OSError, ValueError):
            found.append(json.loads(path.read_text(encoding="utf-8")))
    return found


def _from_ranks(folder: Path, submitted: float) -> Iterator[Finding]:
    for rank in _ranks(folder):
        for finding in rank["findings"]:
            yield Finding(finding["check"], finding["state"], finding["detail"], finding["remedy"], rank["host"])
        off = max(submitted - rank["time"], rank["time"] - time.time())
        if off > CLOCK_SECONDS:
            side = "behind" if rank["time"] < submitted else "ahead of"
            yield Finding(CLOCK.name, FAILED, f"at least {off:.0f} s {side} this machine", CLOCK_REMEDY, rank["host"])


def _before_python(folder: Path, code: int) -> Iterator[Finding]:
    """Why no rank has said anything: --setup, the container or Python itself failed."""
    if code == 0 or _ranks(folder):
        return
    logs = [folder / "batch.log", *sorted(folder.glob("*_log.err"))]
    lines = [line for path in logs for line in _text(path).splitlines()]
    said = [line for line in lines if line.strip() and not re.match(r"(srun|slurmstepd): ", line)] or lines
    reason = said[-1].strip() if said else f"exit code {code}, and nothing in the logs"
    remedy = "correct --setup (MUSTER_SETUP)" if "--setup" in reason else "make the environment again, or the image"
    yield Finding(ENVIRONMENT.name, FAILED, f"Python did not start: {reason[:300]}", remedy)
