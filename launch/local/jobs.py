"""The record of a local job in its run folder: jobs/<host>-<pid>-<time>/ with job.json, settings and a log.

In a container of the image this launcher runs inside the container and records the job as docker's.
"""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from job import config as configuration
from job.config import Config
from job.errors import Refused
from job.run import folder as run_folder
from job.run.folder import RunFolder
from job.runtime import contract, files
from launch.records import Record
from launch.runs import processes, states

LOG = "log.txt"
MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class LocalJob:
    """A job that is about to start."""

    run: Path
    is_new: bool
    """Whether the run folder was created for this job."""
    record: Record

    @property
    def log(self) -> Path:
        return self.run / self.record.folder / LOG

    @property
    def environment(self) -> tuple[tuple[str, str], ...]:
        """Variables to pass to the job."""
        return ((contract.RUN_FOLDER, str(self.run)),) if self.is_new else ()

    def discard_if_new(self) -> None:
        """Remove a new run folder that contains no work: a rejected request leaves no trace."""
        if self.is_new and not RunFolder(self.run).holds_work():
            files.remove(self.run)


def begin(settings: Config, name: str, flags: Sequence[str], tasks: int, environ: Mapping[str, str]) -> LocalJob:
    """Create the run folder, if it is new, and the job's own folder in it.

    Raises:
        Refused: the folder belongs to another run, or cannot be written.
    """
    chosen = settings.run.output_dir
    if chosen is not None:
        run_folder.refuse_others(RunFolder(Path(chosen).absolute()), configuration.settled(settings))
        _refuse_if_active(Path(chosen).absolute())
    run = Path(chosen).absolute() if chosen is not None else run_folder.make_new(name)
    owner = environ.get(contract.OWNER, "")
    in_container = owner.startswith(contract.DOCKER) or contract.IMAGE_DIGEST in environ
    host, container = (*owner.removeprefix(contract.DOCKER).split(":"), "")[:2] if in_container and owner else ("", "")
    name = f"{host or socket.gethostname()}-{os.getpid()}-{time.strftime('%Y%m%d-%H%M%S')}"
    record = Record(
        "docker" if in_container else "local",
        name,
        list(flags),
        config=str(Path(contract.JOBS, name, "config.yaml")),
        directory=str(Path.cwd()),
        tasks=tasks,
        pid=0 if in_container else os.getpid(),
        process_start="" if in_container else processes.started(os.getpid()),
        container=container,
        host=host or socket.gethostname(),
    )
    try:
        (run / record.folder).mkdir(parents=True, exist_ok=True)
        files.write_text(run / record.config, configuration.to_yaml(configuration.settled(settings)))
        record.write(run)
    except OSError as error:
        raise Refused(f"--output_dir {run} cannot be written: {error.strerror}") from None
    return LocalJob(run, chosen is None, record)


def is_lost_with_container(run: Path) -> bool:
    """Whether `run` is in no folder that is mounted: in a container, it is removed with it."""
    mounted = {line.split()[4] for line in MOUNTS.read_text(encoding="utf-8").splitlines()}
    folders = [str(folder) for folder in (run.resolve(), *run.resolve().parents)][:-1]
    return not any(folder.replace("\\", "\\134").replace(" ", "\\040") in mounted for folder in folders)


def _refuse_if_active(run: Path) -> None:
    """Refused if the newest job in this folder runs or is queued: the record of another would hide it from `cancel`."""
    [view], problem = states.read([run], time.time())
    if problem and shutil.which("squeue"):
        raise Refused(f"{states.SILENT} ({problem}): it may have a job for {run}, so nothing was started; try again")
    job = view.run.job
    on_slurm = view.slurm is not None and not view.slurm.has_ended
    if job is not None and (on_slurm or states.process_runs(job)):
        used = f"another run ({job.process}) is active in {run}"
        raise Refused(f"{used}: wait until it ends, `cancel` it, or choose another --output_dir")
