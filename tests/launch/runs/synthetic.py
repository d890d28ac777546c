"""Run folders as the job and the launcher leave them, without running either, and stand-ins for Slurm's programs."""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from job import config
from job.config.tasks import KINDS, SINGLE_LABEL
from launch.runs.slurm import SQUEUE_HEADER

NOW = 1_800_000_000.0
"""When the tests look, in seconds since the epoch."""


def moment(seconds: float) -> str:
    """The time this many seconds before NOW, as the job writes it."""
    return datetime.datetime.fromtimestamp(NOW - seconds, datetime.UTC).isoformat(timespec="milliseconds")


def run(
    path: Path,
    state: str = "RUNNING",
    *,
    job: str = "",
    settings: Mapping[str, Any] | None = None,
    scores: Sequence[Mapping[str, Any]] = (),
    ago: float = 1.0,
    submitted: float = 600.0,
    token: str = "",
    **status: Any,
) -> Path:
    """A run whose last heartbeat was `ago` seconds before NOW; `job`: the id of the Slurm job that it belongs to."""
    path.mkdir(parents=True)
    values = {"state": state, "step": 0, "reason": "", "owner": f"slurm:{job}", "heartbeat": moment(ago), **status}
    write(path / "status.json", values)
    if job:
        record = {"id": job, "launcher": "slurm", "cluster": "", "time": moment(submitted), "flags": ["--gpus", "2"],
                  "token": token}  # fmt: skip
        write(path / "jobs" / job / "job.json", record)
    if state != "QUEUED":
        write(path / "report" / "data.json", {"problem_type": _problem_type(scores), "classes": ["a", "b"]})
        made = config.from_dict(settings or {})
        (path / "config.yaml").write_text(config.to_yaml(made), encoding="utf-8")
        write(path / "manifest.json", {"started": moment(submitted), "restarts": 0, "seed": made.training.seed})
        train = {"step": 10, "epoch": 0.1, "split": "train", "loss": 1.0, "examples_per_second": 16.0}
        lines = [train, *({"step": 10, "epoch": 0.1, "split": "eval", "best": True, **score} for score in scores)]
        (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def _problem_type(scores: Sequence[Mapping[str, Any]]) -> str:
    """The kind of task whose usual number is among the scores, one of several classes if none is."""
    numbers = {name for score in scores for name in score}
    kinds = (kind for kind in reversed(KINDS.values()) if kind.usual_number in numbers)
    return next(kinds, SINGLE_LABEL).problem_type


def finished(path: Path, scores: Mapping[str, Any], *, settings: Mapping[str, Any] | None = None, **more: Any) -> Path:
    """A run that has ended with these scores."""
    run(path, "DONE", settings=settings, **{"scores": [scores], **more})
    write(path / "results.json", {"best_step": 10, "eval": {"loss": 0.5, **scores, "examples": 100}, "train": {}})
    return path


def local_job(path: Path, **values: Any) -> Path:
    """Add the record of a local job to a run."""
    name = values.get("id", "box-7-20270115")
    record = {"id": name, "launcher": "local", "time": moment(600), "flags": [], **values}
    write(path / "jobs" / name / "job.json", record)
    return path


def log(path: Path, job: str, rank: int, text: str, kind: str = "err") -> Path:
    """Add a log of a rank, as submitit names it."""
    file = path / "jobs" / job / f"{job}_{rank}_log.{kind}"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def write(path: Path, value: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class StandIns:
    """A folder of programs for PATH; each call adds a line with its arguments to `<name>.calls`."""

    folder: Path

    def add(self, name: str, script: str) -> None:
        """A program of the shell lines `script`."""
        self.folder.mkdir(exist_ok=True)
        path = self.folder / name
        path.write_text(f'#!/bin/bash\necho "$*" >> {self.folder}/{name}.calls\n{script}\n', encoding="utf-8")
        path.chmod(0o755)

    def calls(self, name: str) -> list[str]:
        path = self.folder / f"{name}.calls"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def squeue(self, *rows: str, header: str = SQUEUE_HEADER) -> None:
        self.add("squeue", "\n".join(f"echo '{line}'" for line in (header, *rows)))

    def sacct(self, *rows: str, header: str = "JobID|State|ExitCode|NodeList") -> None:
        self.add("sacct", "\n".join(f"echo '{line}'" for line in (header, *rows)))
