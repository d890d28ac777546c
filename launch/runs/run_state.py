"""What a run folder says of its run. Reading one opens at most seven files, regardless of the run's length."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.config import metrics
from job.config.metrics import Deciding
from job.config.tasks import KINDS
from job.run.folder import RunFolder
from job.runtime.contract import JOB, JOBS
from job.runtime.files import read_json
from launch.runs.reading import is_file, is_folder, number, read_settings
from launch.runs.slurm import is_job_id

TAIL_BYTES = 1 << 20
"""Bytes at the end of metrics.jsonl that are read; earlier evaluations are not shown."""


@dataclass(frozen=True)
class Job:
    """One submission, from job.json. `host`, `pid` and `process_start` identify a local or docker job's process."""

    id: str
    folder: Path
    launcher: str = "slurm"
    cluster: str = ""
    time: str = ""
    """When it was submitted, ISO 8601 in UTC."""
    flags: tuple[str, ...] = ()
    """The launcher's command line, without the job's flags."""
    config: str = ""
    """File with its settings, relative to the run folder."""
    token: str = ""
    """In the comment of the Slurm job."""
    host: str = ""
    pid: int = 0
    process_start: str = ""
    container: str = ""
    """Name of the container."""

    def __str__(self) -> str:
        return self.id if self.launcher == "slurm" else self.launcher

    @property
    def process(self) -> str:
        """The Slurm job, container or process, in words."""
        if self.launcher == "slurm":
            return f"job {self.id}"
        return f"container {self.container}" if self.container else f"process {self.pid}"


@dataclass(frozen=True)
class Score:
    """One number of an evaluation."""

    name: str
    value: float

    def __str__(self) -> str:
        return f"{self.name} {self.value:.4f}"


@dataclass(frozen=True)
class RunState:
    """A run according to its folder."""

    path: Path
    state: str
    """State in status.json; UNKNOWN without one."""
    step: int = 0
    steps: int | None = None
    reason: str = ""
    heartbeat: float | None = None
    """Seconds since the epoch."""
    started: float = 0.0
    """Seconds since the epoch: the newest submission, else the first start, else the folder's modification time."""
    restarts: int = 0
    job: Job | None = None
    """The newest submission; None for a run that our launcher did not start."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    score: Score | None = None
    """The best score so far."""
    seconds_per_step: float | None = None

    @property
    def name(self) -> str:
        return self.path.name


def read(path: Path) -> RunState:
    """The run in `path`."""
    folder = RunFolder(path)
    status, manifest = read_json(folder.status), read_json(folder.manifest)
    results = read_json(folder.results)
    job = newest_job(path)
    settings = read_settings(folder.config) or (read_settings(path / job.config) if job and job.config else {})
    records = _records(folder.metrics)
    return RunState(
        path=path,
        state=_text(status, "state") or ("DONE" if results else "UNKNOWN"),
        step=_number(status, "step") or 0,
        steps=_number(status, "steps"),
        reason=" ".join(_text(status, "reason").split()),
        heartbeat=seconds(_text(status, "heartbeat")),
        started=started(path, job, manifest),
        restarts=_number(manifest, "restarts") or 0,
        job=job,
        settings=settings,
        score=_score(results, records, deciding(folder, settings)),
        seconds_per_step=_seconds_per_step(records, settings),
    )


def newest_job(run: Path) -> Job | None:
    """The newest submission of a run."""
    folder = _job_folder(run)
    if folder is None:
        return None
    values = read_json(folder / JOB)
    flags = values.get("flags")
    texts = {
        name: _text(values, name)
        for name in ("launcher", "cluster", "time", "config", "token", "host", "process_start", "container")
    }
    return Job(
        id=str(values.get("id") or folder.name),
        folder=folder,
        flags=tuple(map(str, flags)) if isinstance(flags, list) else (),
        pid=_number(values, "pid") or 0,
        **{**texts, "launcher": texts["launcher"] or "slurm"},
    )


def _job_folder(run: Path) -> Path | None:
    """The folder of the newest submission: among those with a job.json, else among those named by a Slurm job id."""
    try:
        jobs = [path for path in (run / JOBS).iterdir() if is_folder(path)]
    except OSError:
        return None
    recorded = [path for path in jobs if is_file(path / JOB)]
    if recorded:
        return max(recorded, key=submitted) if len(recorded) > 1 else recorded[0]  # without reading its record
    named = [path for path in jobs if is_job_id(path.name)]
    return max(named, key=lambda path: [int(part) for part in path.name.split("_")], default=None)


def submitted(job: Path) -> tuple[float, int]:
    """When a job was submitted, to be compared: by its record's time, which a copy keeps, then by the file's.

    The folder's own time is that of its last change, as when the job starts; it is used where there is no record.
    """
    changed = 0
    for path in (job, job / JOB):
        with contextlib.suppress(OSError):
            changed = path.stat().st_mtime_ns
    recorded = seconds(_text(read_json(job / JOB), "time"))
    return (changed / 1e9 if recorded is None else recorded, changed)


def started(path: Path, job: Job | None, manifest: Mapping[str, Any]) -> float:
    for time in (job.time if job else "", _text(manifest, "started")):
        if (moment := seconds(time)) is not None:
            return moment
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def seconds(time: str) -> float | None:
    """An ISO 8601 time as seconds since the epoch; None for other text. Without a time zone it is UTC."""
    try:
        moment = datetime.datetime.fromisoformat(time)
        return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def deciding(folder: RunFolder, settings: Mapping[str, Any]) -> Deciding:
    """The number that decides which model of a run with these settings is the best."""
    return metrics.deciding(settings, KINDS.get(_text(read_json(folder.data), "problem_type")))


def _records(path: Path) -> list[dict[str, Any]]:
    """The evaluations and the last training record at the end of metrics.jsonl, in order."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().splitlines()
    except OSError:
        return []
    last = next((line for line in reversed(lines) if b'"train"' in line and line.endswith(b"}")), None)
    parsed = (_parsed(line) for line in lines if b'"eval"' in line or line is last)
    return [record for record in parsed if record]


def _parsed(line: bytes) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        value = json.loads(line)
        return value if isinstance(value, dict) else {}
    return {}


def _score(results: Mapping[str, Any], records: Iterable[Mapping[str, Any]], decided_by: Deciding) -> Score | None:
    """The deciding number of the best evaluation, else of the test set; None if it is not computed or not a number."""
    best = [record for record in records if record.get("split") == "eval" and record.get("best")]
    scored = (results.get("eval"), results.get("test"), best[-1] if best else {})
    scores = next((scores for scores in scored if isinstance(scores, Mapping)), {})
    value = number(scores.get(decided_by.number))
    return None if value is None else Score(decided_by.number, value)


def _seconds_per_step(records: Iterable[Mapping[str, Any]], settings: Mapping[str, Any]) -> float | None:
    rates = [record.get("examples_per_second") for record in records if record.get("split") == "train"]
    batch = settings.get("train_batch_size")
    if rates and isinstance(rates[-1], int | float) and rates[-1] > 0 and isinstance(batch, int):
        return batch / rates[-1]
    return None


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _number(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
