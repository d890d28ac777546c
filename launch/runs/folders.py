"""Reads run folders without changing anything.

Every file may be missing, incomplete or from another version: what cannot be read counts as missing, and the run is
shown with the rest. Reading a run opens at most seven files, regardless of its length.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from job.config import metrics
from job.config.metrics import Deciding
from job.config.tasks import KINDS
from job.errors import Refused
from job.run.folder import RunFolder
from job.runtime.contract import JOB, JOBS
from launch.runs.slurm import is_job_id

SWEEP = "sweep.json"
STOP = ".stop"
"""File in the folder of a sweep that runs on this machine: it stops."""
"""File in a sweep's folder that lists its elements."""
RUNS = Path("runs")
LATEST = "latest"
TAIL_BYTES = 1 << 20
"""Bytes at the end of metrics.jsonl that are read; earlier evaluations are not shown."""
YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
NESTED = re.compile(r"([\[{]\s*){9}|(- ){9}")
"""Deep nesting, which no config.yaml of ours has, and which crashes the fast loader."""


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


# ---------------------------------------------------------------------------------------------------------------------
# Finding


def is_run(path: Path) -> bool:
    """Whether `path` is a run folder, even if its job has not started."""
    return any(_mode(path / name) for name in ("status.json", "manifest.json", JOBS))


def is_sweep(path: Path) -> bool:
    """Whether `path` is the folder of a sweep, which contains numbered run folders."""
    return is_file(path / SWEEP)


def is_file(path: Path) -> bool:
    """Path.is_file, which raises if the name is too long or a folder above may not be entered: False then."""
    return stat.S_ISREG(_mode(path))


def is_folder(path: Path) -> bool:
    """Path.is_dir, which raises if the name is too long or a folder above may not be entered: False then."""
    return stat.S_ISDIR(_mode(path))


def _mode(path: Path) -> int:
    """The file mode of a path; 0 if there is no such path, or it cannot be reached."""
    with contextlib.suppress(OSError):
        return path.stat().st_mode
    return 0


def reference(path: Path) -> str:
    """How the command line names a run: by its name if it is in runs/, else by its path."""
    return path.name if path.absolute().parent == RUNS.absolute() else str(path)


def sweeps(folder: Path = RUNS) -> list[Path]:
    """The sweeps directly below `folder`."""
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if _is_own_folder(path) and is_sweep(path))
    return []


def find_sweep(name: str, folder: Path = RUNS) -> Path | None:
    """The sweep for a path, a name in `folder` or the job id of an array; None if there is no such sweep."""
    for path in (Path(name), folder / name) if name else ():
        if is_sweep(path):
            return path
    if name.isdigit():
        return next((path for path in sweeps(folder) if any(path.glob(f"*/{JOBS}/{name}_*"))), None)
    return None


def elements(sweep: Path) -> list[Path]:
    """The existing run folders of a sweep, in order: those with a number as their name."""
    return sorted((path for path in below(sweep) if path.name.isdecimal()), key=lambda path: int(path.name))


def not_started(sweep: Path) -> list[str]:
    """The runs in a sweep's table that have no folder yet. A search continued with fewer trials has a shorter table."""
    table = read_json(sweep / SWEEP).get("elements")
    names = [str(one.get("run")) for one in table if isinstance(one, dict)] if isinstance(table, list) else []
    return [name for name in names if not is_run(sweep / name)]


def below(folder: Path = RUNS) -> list[Path]:
    """The run folders directly in `folder`; links such as `latest` are skipped. runs/ may not exist yet.

    Raises:
        Refused: the folder does not exist.
    """
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        if folder == RUNS and isinstance(error, FileNotFoundError):
            return []
        raise Refused(f"{folder} cannot be read ({error.strerror}): give a run or a folder of runs") from None
    return [path for path in children if _is_own_folder(path) and is_run(path)]


def _is_own_folder(path: Path) -> bool:
    """Whether `path`, which is in a listed folder, is itself a folder and no link to one."""
    return is_folder(path) and not path.is_symlink()


def find(run: str, folder: Path = RUNS) -> Path:
    """The run folder for a path, a name, a job id or `latest`; names and ids are looked up in `folder`.

    Raises:
        Refused: there is no such run.
    """
    if run == LATEST:
        return _latest(folder)
    for path in (Path(run), folder / run) if run else ():
        if is_run(path):
            return path.resolve() if path.is_symlink() else path
    in_sweeps = (path for sweep in sweeps(folder) for path in below(sweep))
    for path in (*below(folder), *in_sweeps):
        if job_folder(path, run):
            return path
    if sweep := find_sweep(run, folder):
        raise Refused(f"{run} is a sweep of {len(elements(sweep))} runs: name one, as {sweep}/0")
    raise Refused(f"no run {run}: give its folder, its name in {folder}/, a job id, or `latest`")


def job_folder(run: Path, id: str) -> Path | None:
    """The folder of the job with this id in a run folder; None if it has no such job, or `id` is a path."""
    if id in ("", ".", "..") or os.sep in id:
        return None
    path = run / JOBS / id
    return path if is_folder(path) else None


def newest_submission(folder: Path = RUNS) -> Path:
    """The run in `folder` that was submitted last, whether started or not.

    Raises:
        Refused: there is no submitted run, or the newest is of a sweep, where one of many is not meant by `latest`.
    """
    groups = [below(folder), *map(elements, sweeps(folder))]
    submitted = {path: _submitted(job) for group in groups for path in group if (job := _newest_job(path))}
    if not submitted:
        raise Refused(f"no submitted runs in {folder}/: give a run by name")
    newest = max(submitted, key=lambda path: submitted[path])
    if is_sweep(newest.parent):
        raise Refused(
            f"the newest submission is in the sweep {newest.parent}: name the sweep, or a run of it, as {newest}"
        )
    return newest


def _submitted(job: Path) -> int:
    """When a job was submitted, in nanoseconds: its record is written then, its folder also changes when it starts."""
    for path in (job / JOB, job):
        with contextlib.suppress(OSError):
            return path.stat().st_mtime_ns
    return 0


def _latest(folder: Path) -> Path:
    """The run that started last, from the link `latest`, else by the recorded times."""
    if is_run(folder / LATEST):
        return (folder / LATEST).resolve()
    runs = below(folder)
    if not runs:
        raise Refused(f"no runs in {folder}/: give the folder of a run")
    return max(runs, key=lambda path: _started(path, newest_job(path), read_json(RunFolder(path).manifest)))


def _newest_job(run: Path) -> Path | None:
    """The folder of the newest submission: among those with a job.json, else among those named by a Slurm job id."""
    try:
        jobs = [path for path in (run / JOBS).iterdir() if is_folder(path)]
    except OSError:
        return None
    recorded = [path for path in jobs if is_file(path / JOB)]
    if recorded:
        return max(recorded, key=_submitted)
    named = [path for path in jobs if is_job_id(path.name)]
    return max(named, key=lambda path: [int(part) for part in path.name.split("_")], default=None)


# ---------------------------------------------------------------------------------------------------------------------
# Reading


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
        started=_started(path, job, manifest),
        restarts=_number(manifest, "restarts") or 0,
        job=job,
        settings=settings,
        score=_score(results, records, deciding(folder, settings)),
        seconds_per_step=_seconds_per_step(records, settings),
    )


def newest_job(run: Path) -> Job | None:
    """The newest submission of a run."""
    folder = _newest_job(run)
    if folder is None:
        return None
    values = read_json(folder / JOB)
    flags = values.get("flags")
    texts = {
        name: _text(values, name)
        for name in ("launcher", "cluster", "time", "config", "host", "process_start", "container")
    }
    return Job(
        id=str(values.get("id") or folder.name),
        folder=folder,
        flags=tuple(map(str, flags)) if isinstance(flags, list) else (),
        pid=_number(values, "pid") or 0,
        **{**texts, "launcher": texts["launcher"] or "slurm"},
    )


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; empty if it cannot be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        value = json.loads(path.read_text(encoding="utf-8"))
        return value if isinstance(value, dict) else {}
    return {}


def read_settings(path: Path) -> dict[str, Any]:
    """The settings in a config.yaml; empty if it cannot be read."""
    with contextlib.suppress(OSError, ValueError, yaml.YAMLError):
        text = path.read_text(encoding="utf-8")
        if NESTED.search(text):
            return {}
        value = yaml.load(text, Loader=YAML)
        return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}
    return {}


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
    value = scores.get(decided_by.number)
    return Score(decided_by.number, float(value)) if isinstance(value, int | float) else None


def _seconds_per_step(records: Iterable[Mapping[str, Any]], settings: Mapping[str, Any]) -> float | None:
    rates = [record.get("examples_per_second") for record in records if record.get("split") == "train"]
    batch = settings.get("train_batch_size")
    if rates and isinstance(rates[-1], int | float) and rates[-1] > 0 and isinstance(batch, int):
        return batch / rates[-1]
    return None


def _started(path: Path, job: Job | None, manifest: Mapping[str, Any]) -> float:
    for time in (job.time if job else "", _text(manifest, "started")):
        if (moment := seconds(time)) is not None:
            return moment
    with contextlib.suppress(OSError):
        return path.stat().st_mtime
    return 0.0


def _text(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _number(values: Mapping[str, Any], name: str) -> int | None:
    value = values.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
