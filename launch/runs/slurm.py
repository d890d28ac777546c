"""What Slurm says about jobs: squeue for what waits or runs, sacct for how a job ended, where there is accounting.

One squeue and at most one sacct a cluster, however many jobs. Sites wrap these programs and print banners, so only
lines of our own format count, and an answer counts only if it begins with the header that we asked for: then a job that
is not in it is one that Slurm does not know.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from signal import SIGKILL

SECONDS = 5.0
"""How long Slurm has to answer."""
SQUEUE = ("squeue", "--array", "--states=all", "--format=%i|%T|%M|%L|%N|%r")
SQUEUE_HEADER = "JOBID|STATE|TIME|TIME_LEFT|NODELIST|REASON"
SACCT = ("sacct", "--parsable2", "--allocations", "--format=JobID,State,ExitCode,NodeList")
SACCT_HEADER = "JobID|State|ExitCode|NodeList"
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "STAGE_OUT", "SIGNALING", "RESIZING")


def is_job_id(text: str) -> bool:
    """Whether `text` is the id of a job, 12, or of an element of an array, 12_3."""
    return re.fullmatch(r"[0-9]+(_[0-9]+)?", text) is not None


@dataclass(frozen=True)
class SlurmJob:
    """One job as squeue or sacct shows it."""

    state: str
    reason: str = ""
    """Why it waits."""
    nodes: str = ""
    time_left: str = ""
    """Until its limit, in Slurm's form."""
    exit_code: str = ""
    """`code:signal`, from sacct."""

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def runs(self) -> bool:
        return self.state in RUNNING

    @property
    def has_ended(self) -> bool:
        return not self.waits and not self.runs


@dataclass(frozen=True)
class Answer:
    """What Slurm answered about some jobs; a job that is not in `jobs` is unknown to it, unless `problem` says why."""

    jobs: Mapping[str, SlurmJob] = field(default_factory=dict)
    problem: str = ""
    """Why there is no answer; empty where there is one."""


def squeue(ids: Sequence[str], cluster: str = "") -> Answer:
    """The jobs of these ids that wait, run, or ended minutes ago."""
    if not ids:
        return Answer()
    said = _ask([*SQUEUE, f"--jobs={','.join(ids)}", *_of(cluster)])
    return said if isinstance(said, Answer) else parse_squeue(*said)


def sacct(ids: Sequence[str], cluster: str = "") -> Answer:
    """The last state of these jobs, where they are accounted for."""
    if not ids:
        return Answer()
    said = _ask([*SACCT, f"--jobs={','.join(ids)}", *_of(cluster)])
    return said if isinstance(said, Answer) else parse_sacct(*said)


def scancel(id: str, cluster: str = "", signal: str = "") -> str:
    """Cancel a job, or send `signal` to its ranks; why that did not work, or nothing."""
    said = _ask(["scancel", *([f"--signal={signal}"] if signal else []), *_of(cluster), id])
    if isinstance(said, Answer):
        return said.problem
    code, out, err = said
    return f"not cancelled: scancel says {_said(err, out, code)!r}" if code else ""


def parse_squeue(code: int, out: str, err: str) -> Answer:
    """squeue's exit code and output; a single id that it does not know is an error for it, and an answer for us."""
    if "Invalid job id" in err:
        return Answer()
    rows, problem = _rows("squeue", SQUEUE_HEADER, code, out, err)
    return Answer({row[0]: SlurmJob(row[1], row[5], row[4], row[3]) for row in rows}, problem)


def parse_sacct(code: int, out: str, err: str) -> Answer:
    rows, problem = _rows("sacct", SACCT_HEADER, code, out, err)
    # "CANCELLED by 1000", "TIMEOUT"
    return Answer({row[0]: SlurmJob(row[1].split()[0], "", row[3], "", row[2]) for row in rows if row[1]}, problem)


def _rows(program: str, header: str, code: int, out: str, err: str) -> tuple[list[list[str]], str]:
    """The rows below the header, and what is wrong with the answer."""
    lines = [line.strip() for line in out.splitlines()]
    if header not in lines:
        return [], f"{program} says {_said(err, out, code)!r}"
    columns = header.count("|")
    rows = [line.split("|", columns) for line in lines[lines.index(header) + 1 :] if line.count("|") >= columns]
    return [row for row in rows if is_job_id(row[0])], ""


def _said(err: str, out: str, code: int) -> str:
    """The first line of what a program printed."""
    lines = (line.strip() for line in [*err.splitlines(), *out.splitlines()])
    said = next((line for line in lines if line), f"exit code {code}")
    return re.sub(r"^s[a-z]+: error: ", "", said)[:120]


def _ask(command: Iterable[str]) -> Answer | tuple[int, str, str]:
    """The program's exit code and output, or why there is none."""
    words = list(command)
    pipe, null = subprocess.PIPE, subprocess.DEVNULL
    try:
        process = subprocess.Popen(words, stdin=null, stdout=pipe, stderr=pipe, start_new_session=True)
    except FileNotFoundError:
        return Answer(problem=f"{words[0]} is not installed here")
    except OSError as error:
        return Answer(problem=f"{words[0]} cannot be started: {error.strerror}")
    with process:
        try:
            out, err = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, SIGKILL)  # a site's wrapper and what it started
            return Answer(problem=f"{words[0]} did not answer in {SECONDS:.0f} s")
    return process.returncode, out.decode(errors="replace"), err.decode(errors="replace")


def _of(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []
