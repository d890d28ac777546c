"""What the launcher writes into a run folder, and what it reads there before it starts another job.

`jobs/<id>/job.json` says how a job was launched. `status.json` says QUEUED before sbatch is called; from then on it is
the job's own (job/run/status.py), and the batch script's where the job was killed before it could say why.
"""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from job.runtime import contract, files


@dataclass(frozen=True)
class Record:
    """How a job was launched. Paths inside the run folder are relative to it."""

    launcher: str
    """slurm, local or docker."""
    id: str
    """Slurm's, or <host>-<pid>-<time>."""
    flags: Sequence[str]
    """The launcher's own command line, without the job's flags."""
    config: str
    """File with all settings of the job."""
    directory: str
    """Working directory."""
    nodes: int = 1
    tasks: int = 1
    """Processes of a node."""
    cluster: str = ""
    """Where sbatch named one."""
    pid: int = 0
    """Of the process that passes signals on to the job: local and docker."""
    process_start: str = ""
    """Tells that process from a later one with its id."""
    container: str = ""
    host: str = field(default_factory=socket.gethostname)
    """Where the job was launched."""
    time: str = field(default_factory=files.utc_now)
    """UTC, ISO 8601."""

    @property
    def folder(self) -> Path:
        """Of its logs, relative to the run folder."""
        return Path(contract.JOBS, self.id)

    def write(self, run: Path) -> None:
        files.write_json(run / self.folder / contract.JOB, {**asdict(self), "logs": str(self.folder)})


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
