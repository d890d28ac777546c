"""Queries the state of jobs: squeue for pending and running jobs, sacct, if there is accounting, for ended ones.

There is one call of squeue and at most one of sacct per cluster, regardless of the number of jobs. Sites wrap these
programs and print banners, so only lines in the requested format count, and only after the requested header: then a job
that is not listed is one that Slurm does not know.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from launch.runs import slurm_programs
from launch.runs.slurm_programs import NoAnswerError

SECONDS = 5.0
"""Timeout of a Slurm command."""
SQUEUE = ("squeue", "--array", "--states=all", "--format=%i|%T|%M|%L|%N|%r|%k")
SQUEUE_HEADER = "JOBID|STATE|TIME|TIME_LEFT|NODELIST|REASON|COMMENT"
SACCT = ("sacct", "--parsable2", "--allocations", "--format=JobID,State,ExitCode,NodeList")
SACCT_HEADER = "JobID|State|ExitCode|NodeList"
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
TOKEN = re.compile(r"muster(?:-doctor)?:[0-9a-f]+")
"""In the comment of a job that this launcher submitted: names the submission."""
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "STAGE_OUT", "SIGNALING", "RESIZING")


def is_job_id(text: str) -> bool:
    """Whether `text` is the id of a job, such as 12, or of an element of an array, such as 12_3."""
    return re.fullmatch(r"[0-9]+(_[0-9]+)?", text) is not None


@dataclass(frozen=True)
class SlurmJob:
    """One job as squeue or sacct shows it."""

    state: str
    reason: str = ""
    """Why it is pending."""
    nodes: str = ""
    time_left: str = ""
    """Time until its limit, in Slurm's format."""
    exit_code: str = ""
    """`code:signal`, from sacct."""
    comment: str = ""
    """From squeue."""
    elapsed: str = ""
    """Time since its newest start, in Slurm's format, from squeue."""

    @property
    def waits(self) -> bool:
        return self.state in WAITING

    @property
    def runs(self) -> bool:
        return self.state in RUNNING

    @property
    def has_ended(self) -> bool:
        return not self.waits and not self.runs


def is_of_submission(comment: str, token: str) -> bool | None:
    """Whether a job with this comment is of the submission with `token`; None if the comment names no submission.

    The id of a job is not enough: Slurm starts over with its ids after a reset. A comment may have been changed since.
    """
    tokens = TOKEN.findall(comment)
    return token in tokens if token and tokens else None


@dataclass(frozen=True)
class Answer:
    """Slurm's answer about some jobs; it does not know those that are not in `jobs`, unless there is a `problem`."""

    jobs: Mapping[str, SlurmJob] = field(default_factory=dict)
    problem: str = ""
    """Why there is no answer; empty if there is one."""

    def job(self, id: str, token: str) -> SlurmJob | None:
        """The job with this id, unless it is of another submission than the one with `token`."""
        job = self.jobs.get(id)
        return None if job and is_of_submission(job.comment, token) is False else job


def squeue(ids: Sequence[str], cluster: str = "") -> Answer:
    """The jobs with these ids that are pending or running, or ended minutes ago."""
    if not ids:
        return Answer()
    output = _run([*SQUEUE, _jobs_flag(ids), *_cluster_flag(cluster)])
    return output if isinstance(output, Answer) else parse_squeue(*output)


def sacct(ids: Sequence[str], cluster: str = "") -> Answer:
    """The final state of these jobs, if Slurm has accounting."""
    if not ids:
        return Answer()
    output = _run([*SACCT, _jobs_flag(ids), *_cluster_flag(cluster)])
    return output if isinstance(output, Answer) else parse_sacct(*output)


def scancel(id: str, cluster: str = "", signal: str = "") -> str:
    """Cancel a job, or send `signal` to its ranks; returns an error message, or an empty string."""
    output = _run(["scancel", *([f"--signal={signal}"] if signal else []), *_cluster_flag(cluster), id])
    if isinstance(output, Answer):
        return output.problem
    code, out, err = output
    return f"not cancelled: scancel says {_first_line(err, out, code)!r}" if code else ""


def parse_squeue(code: int, out: str, err: str) -> Answer:
    """The jobs in squeue's output. squeue fails if the only id is unknown, which here is a valid answer."""
    if "Invalid job id" in err:
        return Answer()
    rows, problem = _rows("squeue", SQUEUE_HEADER, code, out, err)
    return Answer({row[0]: _queued(row) for row in rows}, problem)


def _queued(row: Sequence[str]) -> SlurmJob:
    """The job in a row of squeue. The reason may contain our separator, and the token is the comment's last word."""
    reason, _, comment = "|".join(row[5:]).rpartition("|")
    return SlurmJob(row[1], reason, nodes=row[4], time_left=row[3], comment=comment, elapsed=row[2])


def parse_sacct(code: int, out: str, err: str) -> Answer:
    """The jobs in sacct's output."""
    rows, problem = _rows("sacct", SACCT_HEADER, code, out, err)
    # the state may have more words, as in "CANCELLED by 1000"
    return Answer(
        {row[0]: SlurmJob(row[1].split()[0], "", row[3], "", row[2]) for row in rows if row[1].strip()}, problem
    )


def _rows(program: str, header: str, code: int, out: str, err: str) -> tuple[list[list[str]], str]:
    """The rows below the header; and an error message, if the header is missing."""
    lines = [line.strip() for line in out.splitlines()]
    if header not in lines:
        return [], f"{program} says {_first_line(err, out, code)!r}"
    columns = header.count("|")
    rows = [line.split("|", columns) for line in lines[lines.index(header) + 1 :] if line.count("|") >= columns]
    return [row for row in rows if is_job_id(row[0])], ""


def _first_line(err: str, out: str, code: int) -> str:
    """The first line of what a program printed."""
    lines = (line.strip() for line in [*err.splitlines(), *out.splitlines()])
    first = next((line for line in lines if line), f"exit code {code}")
    return re.sub(r"^s[a-z]+: error: ", "", first)[:120]


def _run(command: Sequence[str]) -> Answer | tuple[int, str, str]:
    """Exit code, stdout and stderr of a command; an answer with a problem if it cannot be run."""
    try:
        done = slurm_programs.run(command, SECONDS)
    except NoAnswerError as error:
        return Answer(problem=str(error))
    return done.returncode, done.stdout, done.stderr


def _jobs_flag(ids: Sequence[str]) -> str:
    """An array is asked for as a whole: the ids of thousands of elements would be too long for an argument."""
    return f"--jobs={','.join(dict.fromkeys(id.partition('_')[0] for id in ids))}"


def _cluster_flag(cluster: str) -> list[str]:
    return [f"--clusters={cluster}"] if cluster else []
