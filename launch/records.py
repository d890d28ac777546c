"""Files that the launcher writes to a run folder, and reads before it starts another job.

`jobs/<id>/job.json` records how a job was launched. `status.json` is set to QUEUED before sbatch is called. From then
on it is written by the job (job/run/status.py), or by the batch script if the job was killed before it could.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from job.run import lock
from job.runtime import contract, files


@dataclass(frozen=True)
class Record:
    """How a job was launched. Paths inside the run folder are relative to it."""

    launcher: str
    """slurm, local or docker."""
    id: str
    """Slurm's job id, or <host>-<pid>-<time>."""
    flags: Sequence[str]
    """The launcher's own command line, without the job's flags."""
    config: str
    """File with the settings of the job."""
    directory: str
    """Working directory."""
    nodes: int = 1
    tasks: int = 1
    """Processes per node."""
    cluster: str = ""
    """Name of the cluster, if sbatch printed one."""
    token: str = ""
    """Unique text in the Slurm job's comment."""
    pid: int = 0
    """Process that forwards signals to the job, for local jobs."""
    process_start: str = ""
    """Start of that process, to distinguish it from a later one with the same id."""
    container: str = ""
    host: str = field(default_factory=socket.gethostname)
    """Host on which the job was launched."""
    time: str = field(default_factory=files.utc_now)
    """Time of the launch, UTC, ISO 8601."""

    @property
    def folder(self) -> Path:
        """The folder of its logs, relative to the run folder."""
        return Path(contract.JOBS, self.id)

    def write(self, run: Path) -> None:
        files.write_json(run / self.folder / contract.JOB, {**asdict(self), "logs": str(self.folder)})


def write_queued(run: Path, owner: str) -> None:
    """Set the state to QUEUED, keeping the step of an earlier start."""
    status = {"state": "QUEUED", "step": lock.read_status(run).get("step", 0), "reason": "", "owner": owner,
              "heartbeat": files.utc_now("milliseconds")}  # fmt: skip
    files.write_json(run / contract.STATUS, status)


def write_refused(run: Path, owner: str, reason: str) -> None:
    """Set the state to FAILED, unless another owner has written the status since."""
    status = lock.read_status(run)
    if status.get("owner") == owner:
        files.write_json(run / contract.STATUS, {**status, "state": "FAILED", "reason": reason})
