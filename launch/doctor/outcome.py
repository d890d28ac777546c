"""Reads the results of the doctor's job from its folder: those of each node before Python, then those of each rank."""

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
from launch.slurm.client import Answer

NO_FOLDER, BAD_NODE = 91, 92
"""Exit codes of the batch script."""
VISIBLE_SECONDS = 10.0
"""How long a network file system may take to show a file that a node wrote, in seconds."""
PROBE_RESULTS = {
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


def read(folder: Path, job: Answer, processes: int, submitted: float) -> list[Finding]:
    """The findings of a job that has ended.

    Args:
        folder: the doctor's own folder.
        job: as sbatch answered.
        processes: number of ranks on all nodes.
        submitted: time of the submission on this machine, in seconds since the epoch.
    """
    code, host = client.exit_code(job)
    if code == NO_FOLDER:
        return [Finding(FOLDER.name, FAILED, f"{folder.parent} is not on this node{local_disk(folder)}",
                        "work in a folder of a file system that the nodes share", host)]  # fmt: skip
    _wait_for(folder, lambda: _has_reason(folder, code) if code else len(_ranks(folder)) == processes)
    if not (folder / "batch.log").exists():
        return [_not_visible(folder, host)]
    findings = list(_from_nodes(folder))
    return findings if _failed(findings) else [*findings, *of_ranks(folder, submitted, code)]


def of_ranks(folder: Path, submitted: float, code: int) -> list[Finding]:
    """The findings of the ranks; if there are none, the reason from the logs and the exit code."""
    return [*_from_ranks(folder, submitted), *_before_python(folder, code)]


def _has_reason(folder: Path, code: int) -> bool:
    """Whether the files of a failed job already contain a reason."""
    if code == BAD_NODE:
        return (folder / "nodes.txt").exists()
    return bool(_ranks(folder)) or "muster: " in _text(folder / "batch.log")


def _text(path: Path) -> str:
    """The content of a file; empty if it does not exist (yet)."""
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""


def _wait_for(folder: Path, condition: Callable[[], bool]) -> None:
    """Wait for a file on a network file system, which may cache its absence until the folder is listed."""
    until = time.monotonic() + VISIBLE_SECONDS
    while not condition() and time.monotonic() < until:
        time.sleep(0.5)
        os.listdir(folder)  # noqa: PTH208


def _failed(findings: list[Finding]) -> bool:
    return any(finding.state == FAILED for finding in findings)


def _from_nodes(folder: Path) -> Iterator[Finding]:
    """The findings of probe.sh on each node."""
    for line in _text(folder / "nodes.txt").splitlines():
        node, what, reason = [*line.split("|", 2), "", ""][:3]
        if what in PROBE_RESULTS:
            check, detail, remedy = PROBE_RESULTS[what]
            if check == ENVIRONMENT:
                yield Finding(FOLDER.name, OK, _shared(folder), place=node)
            yield Finding(check.name, FAILED, detail.format(reason=reason), remedy, node)
        elif what == "ok":
            yield _visibility(folder, node)


def _visibility(folder: Path, node: str) -> Finding:
    """Whether this machine sees the file that a node wrote."""
    mark = folder / f"seen-by-{node}"
    _wait_for(folder, mark.exists)
    if mark.exists():
        return Finding(FOLDER.name, OK, _shared(folder), place=node)
    return _not_visible(folder, node)


def _not_visible(folder: Path, node: str) -> Finding:
    return Finding(FOLDER.name, FAILED, f"what it writes into {folder.parent} is not visible elsewhere",
                   "work in a folder of a file system that the nodes share", node)  # fmt: skip


def _shared(folder: Path) -> str:
    return f"{folder.parent} is visible and writable"


def _ranks(folder: Path) -> list[dict[str, Any]]:
    ranks = []
    for path in sorted(folder.glob("rank-*.json")):
        with contextlib.suppress(OSError, ValueError):
            ranks.append(json.loads(path.read_text(encoding="utf-8")))
    return ranks


def _from_ranks(folder: Path, submitted: float) -> Iterator[Finding]:
    for rank in _ranks(folder):
        for finding in rank["findings"]:
            yield Finding(finding["check"], finding["state"], finding["detail"], finding["remedy"], rank["host"])
        off = max(submitted - rank["time"], rank["time"] - time.time())
        if off > CLOCK_SECONDS:
            side = "behind" if rank["time"] < submitted else "ahead of"
            yield Finding(CLOCK.name, FAILED, f"at least {off:.0f} s {side} this machine", CLOCK_REMEDY, rank["host"])


def _before_python(folder: Path, code: int) -> Iterator[Finding]:
    """Why no rank has written a result: --setup, the container or Python itself failed."""
    if code == 0 or _ranks(folder):
        return
    logs = [folder / "batch.log", *sorted(folder.glob("*_log.err"))]
    lines = [line for path in logs for line in _text(path).splitlines()]
    causes = [line for line in lines if line.strip() and not re.match(r"(srun|slurmstepd): ", line)] or lines
    reason = causes[-1].strip() if causes else f"exit code {code}, and nothing in the logs"
    remedy = "correct --setup (MUSTER_SETUP)" if "--setup" in reason else "make the environment again, or the image"
    yield Finding(ENVIRONMENT.name, FAILED, f"Python did not start: {reason[:300]}", remedy)
