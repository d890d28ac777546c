"""What the launcher writes into a run folder, and what it reads there before it starts another job.

`jobs/<id>/job.json` says how a job was launched. `status.json` says QUEUED before sbatch is called; from then on it is
the job's own (job/run/status.py), and the batch script's where the job was killed before it could say why.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job.runtime import contract, files


@dataclass(frozen=True)
class Record:
    """How a job was launched."""

    id: str
    launcher: str
    """slurm, local or docker."""
    cluster: str
    """Slurm's name of it where the site has several, else the host that the job was launched from."""
    time: str
    """UTC, ISO 8601."""
    flags: Sequence[str]
    """The launcher's own command line, without the job's flags."""
    nodes: int

    def write(self, folder: Path) -> None:
        files.write_json(folder / contract.JOB, asdict(self))


def read_status(run: Path) -> dict[str, Any]:
    """What status.json holds; empty where there is none that can be read."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((run / contract.STATUS).read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


def write_queued(run: Path, owner: str) -> None:
    """QUEUED, as far as the run got before."""
    status = {"state": "QUEUED", "step": read_status(run).get("step", 0), "reason": "", "owner": owner,
              "heartbeat": files.utc_now("milliseconds")}  # fmt: skip
    files.write_json(run / contract.STATUS, status)


def write_refused(run: Path, owner: str, reason: str) -> None:
    """FAILED, unless somebody else wrote the status since."""
    status = read_status(run)
    if status.get("owner") == owner:
        files.write_json(run / contract.STATUS, {**status, "state": "FAILED", "reason": reason})
