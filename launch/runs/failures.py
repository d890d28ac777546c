"""Why a run failed: the first error in its logs, and what to try."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from launch.runs.run_state import RunState

TAIL_BYTES = 1 << 18
"""Bytes at the end of each log that are searched."""
RANK_LOG = re.compile(r"\d+(?:_\d+)?_(\d+)_log\.(out|err)")
STAMP = re.compile(r"(?:submitit \w+ \()?(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)")
"""The time at the start of a line of the job's log, or of submitit's."""
HEAD = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+( rank \d+)? ?")
"""The prefix of each line of the job's log."""
ERROR = re.compile(
    r"error: |muster: |slurmstepd: error: |Fatal Python error|Timeout \(|"
    r"[\w.]*(Error|Exception|Refused|Loss|OutOfMemory|NeedsHuman)(: |$)"
)
CONSEQUENCE = re.compile(
    r"another process (died|of this job ended)|Connection (closed|reset) by peer|Broken pipe|srun: |"
    r"slurmstepd: error: \*\*\* (STEP|JOB)|Application timeout caused pair closure|ChildFailedError|"
    r"submitit|Watchdog caught collective operation timeout"
)

RESUMED = "`rerun` resumes from the newest checkpoint"
REMEDIES = {
    "UploadFailed": "`rerun RUN` uploads the model and trains nothing",
    "(?i)OutOfMemoryError|CUDA out of memory|OutOfMemory:": "fewer tokens per forward pass: `rerun RUN -- "
    "--max_tokens_per_device 4096`, or a lower --max_seq_length",
    "(?i)out of memory|SIGKILL": "more memory (--sbatch=--mem=64G) or a lower --max_tokens_per_device; " + RESUMED,
    "time limit|made no progress": "`rerun RUN --time 8h`: it resumes from the newest checkpoint",
    "rejected|Refused": "change what the error names: `rerun RUN -- --flag value`",
    "NonFiniteLoss": "a lower --learning_rate, or another --mixed_precision: `rerun RUN -- --learning_rate 1e-5`",
    "cannot be written|No space": "free some disk space; " + RESUMED,
    "never starts": "`cancel RUN`, fix what Slurm reports, then `rerun RUN`",
}
BY_STATE = {
    "FAILED": f"`logs RUN` shows more; {RESUMED}",
    "NEEDS_HUMAN": "inspect checkpoints/ and checkpoints/quarantine/: none can be used as it is",
    **dict.fromkeys(("LOST", "STOPPED", "CANCELLED"), RESUMED),
}


@dataclass(frozen=True)
class Error:
    """One line of a log."""

    line: str
    rank: int | None
    log: Path
    time: str
    """Time of the line, or of the previous line that has one."""


def logs(job: Path) -> list[tuple[int | None, Path]]:
    """(rank, file) of every log of a submission, by rank, stdout first; rank None: one log for all ranks."""
    with contextlib.suppress(OSError):
        files = [(RANK_LOG.fullmatch(path.name), path) for path in sorted(job.iterdir())]
        ranked = [(int(match[1]), path) for match, path in files if match]
        combined = [(None, path) for match, path in files if not match and path.name == "log.txt"]
        return [*combined, *sorted(ranked, key=lambda pair: (pair[0], pair[1].suffix == ".err"))]
    return []


def first_error(run: RunState) -> Error | None:
    """The earliest error. Errors about a lost peer count only if there is no other error."""
    if run.job is None:
        return None
    errors = [error for rank, path in logs(run.job.folder) for error in _errors(path, rank)]
    causes = [error for error in errors if not CONSEQUENCE.search(error.line)]
    return min(causes or errors, key=lambda error: error.time, default=None)


def times(lines: Iterable[str]) -> Iterator[str]:
    """The time of each line of a log: its own, else that of the previous line; empty before the first time."""
    moment = ""
    for line in lines:
        if match := STAMP.match(line):
            moment = match[1]
        yield moment


def advice(state: str, reason: str) -> str:
    """What to try for a run that ended in `state` with `reason`."""
    return next((remedy for words, remedy in REMEDIES.items() if re.search(words, reason)), BY_STATE.get(state, ""))


def _errors(log: Path, rank: int | None) -> Iterator[Error]:
    """The first error in the tail of a log. Of a traceback, the last line counts."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return
    written = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(log.stat().st_mtime))
    for line, moment in zip(lines, times(lines), strict=True):
        text = HEAD.sub("", line, count=1)
        if ERROR.match(text) and not text.startswith("muster: stopped by"):
            yield Error(" ".join(text.split())[:300], rank, log, moment or written)
            return
