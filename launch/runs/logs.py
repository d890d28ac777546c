"""`logs`: the merged logs of all ranks of a run, or the log of one rank; with --follow across requeues.

A requeued job appends to the files of its first start; for a run that was submitted again, the files of its newest job
are shown. Lines are merged by the time at their start; a line without a time stays after the previous line.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from job.errors import Refused
from launch.runs import failures, folders, run_state, states, tables
from launch.runs.states import View

LAST_LINES = 10
"""Number of lines printed for each run of a sweep."""
POLL_SECONDS = 0.5
POLLS_PER_LOOK = 10
"""Polls of the logs between two checks whether the run has ended."""


def show(run: str, *, rank: int | None, follow: bool, as_json: bool) -> int:
    """Print the log of a run; returns 0. JSON: one object per line."""
    sweep = folders.find_sweep(run)
    if sweep is not None and not follow and not as_json and rank is None:
        return _show_ends(sweep)
    path = folders.find(run)
    log = Log(path, folders.job_folder(path, run), rank, as_json)  # a job id selects that job
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            _follow(log, time.sleep)
        return 0
    for line in log.new():
        tables.write(line)
    if not log.files:
        view = _look(path)[0]
        print(f"no log yet: {path.name} is {view.state}{f', {view.note}' if view.note else ''}", file=sys.stderr)
    return 0


def _show_ends(sweep: Path) -> int:
    """Print the last lines of each run of a sweep."""
    for path in folders.elements(sweep):
        view = _look(path)[0]
        tables.write(f"==> {path} <== {view.state}{f', {view.note}' if view.note else ''}")
        if view.run.job is not None:
            for line in list(Log(path, None, None).new())[-LAST_LINES:]:
                tables.write(line)
    return 0


@dataclass
class Log:
    """The logs of a run's newest job, read as they grow."""

    run: Path
    fixed: Path | None
    """The folder of the job to show; None: the newest job."""
    rank: int | None
    """The only rank to show."""
    as_json: bool = False
    files: dict[Path, int] = field(default_factory=dict)
    """Bytes read of each."""

    def new(self, *, whole: bool = True) -> Iterator[str]:
        """The lines that were added since the last call; `whole`: include an unfinished last line."""
        files = self._files()
        by_rank = self.rank is None and len({rank for rank, _ in files}) > 1
        added: list[tuple[str, int | None, str, str]] = []
        for rank, path in files:
            lines = self._lines(path, whole)
            added += (
                (moment, rank, path.name, line) for moment, line in zip(failures.times(lines), lines, strict=True)
            )
        for _, rank, name, line in sorted(added, key=lambda one: one[0]):
            if self.as_json:
                yield json.dumps({"rank": rank, "file": name, "line": line}, ensure_ascii=False)
            else:
                yield f"{rank}: {line}" if by_rank else line

    def _files(self) -> list[tuple[int | None, Path]]:
        """The log files; Refused if the requested rank has no log but others have."""
        job = self.fixed or _newest(self.run)
        files = failures.logs(job)
        if self.rank is None or not files:
            return files
        if files[0][0] is None:
            raise Refused(f"{self.run.name} has a single log for all ranks: remove --rank")
        mine: list[tuple[int | None, Path]] = [(rank, path) for rank, path in files if rank == self.rank]
        if not mine:
            ranks = sorted({rank for rank, _ in files if rank is not None})
            raise Refused(f"no log of rank {self.rank}: {self.run.name} has ranks {ranks[0]} to {ranks[-1]}")
        return mine

    def _lines(self, path: Path, whole: bool) -> list[str]:
        start = self.files.setdefault(path, 0)
        try:
            if path.stat().st_size < start:  # the file was replaced
                start = 0
            with path.open("rb") as file:
                file.seek(start)
                added = file.read()
        except OSError:
            return []
        if not whole:
            added = added[: added.rfind(b"\n") + 1]
        self.files[path] = start + len(added)
        lines = added.decode(errors="replace").removesuffix("\n").split("\n") if added else []
        return [line.rstrip("\r").rsplit("\r", 1)[-1] for line in lines]  # the last state of a progress bar


def _newest(run: Path) -> Path:
    job = run_state.newest_job(run)
    if job is None:
        raise Refused(f"{run.name} was not started by this launcher: its output is where it was started")
    return job.folder


def _follow(log: Log, pause: Callable[[float], None]) -> None:
    """Print new lines until the run has ended."""
    ended = ""
    while not ended:
        view, problem = _look(log.run)
        ended = (
            ""
            if _may_continue(view, problem)
            else f"{log.run.name}: {view.state}{f', {view.note}' if view.note else ''}"
        )
        for _ in range(1 if ended else POLLS_PER_LOOK):
            for line in log.new(whole=bool(ended)):
                tables.write(line)
            if not ended:
                pause(POLL_SECONDS)
    print(ended, file=sys.stderr)


def _may_continue(view: View, problem: str) -> bool:
    """Whether more output may follow: the run is queued or running, or Slurm has not confirmed its end."""
    if view.state in ("QUEUED", "RUNNING"):
        return True
    on_slurm = view.slurm is not None and not view.slurm.has_ended
    return on_slurm or (bool(problem) and view.state in ("STOPPED", "LOST", "UNKNOWN"))


def _look(path: Path) -> tuple[View, str]:
    views, problem = states.read([path], time.time())
    return views[0], problem
