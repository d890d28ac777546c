"""Queries to Slurm: whether it accepts a job, the user's jobs, and the state of nodes.

Output is parsed strictly. A site may wrap Slurm's commands and print additional text, so a line counts only if it has
exactly the form that the command itself prints.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from job.errors import Refused
from job.runtime import contract
from launch.plan import Plan
from launch.runs import slurm_programs
from launch.runs.slurm import is_job_id, is_of_submission
from launch.runs.slurm_programs import NoAnswerError

SECONDS = 120
UNAVAILABLE = re.compile(r"(down|drain|drng|drained|fail|failg|maint|resv|reboot|unk|inval|npc|no_respond)|.*[*$@^]$")
"""sinfo's states of nodes that cannot start jobs now; some are marked by a suffix."""
FORMAT = "%i|%T|%r|%k"


@dataclass(frozen=True)
class Job:
    """A job that is queued or running."""

    id: str
    """With the index for an element of an array: 12_3."""
    state: str
    """As Slurm spells it: PENDING, RUNNING, COMPLETING, ..."""
    reason: str
    """Why it is pending."""
    comment: str
    cluster: str = ""
    """Empty for the default cluster."""

    @property
    def scancel(self) -> str:
        """The command that cancels it."""
        return _scancel(self.id, self.cluster)


@dataclass(frozen=True)
class Answer:
    """sbatch's answer for a job that it queued."""

    id: str
    cluster: str
    """Empty unless the job was queued on another cluster."""

    @property
    def scancel(self) -> str:
        """The command that cancels it."""
        return _scancel(self.id, self.cluster)


def _scancel(id: str, cluster: str) -> str:
    return " ".join(["scancel", *cluster_flag(cluster), id])


def cluster_flag(clusters: str) -> list[str]:
    """The flag by which Slurm's commands ask other clusters; none for the default one."""
    return [f"--clusters={clusters}"] if clusters else []


def read_answer(text: str) -> Answer | None:
    """The job id in sbatch's output; None if no line has the form of an answer."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and (match := re.fullmatch(r"([0-9]+)(?:;(\S+))?", lines[-1])):
        return Answer(match[1], match[2] or "")
    for line in lines:
        if match := re.fullmatch(r"Submitted batch job ([0-9]+)(?: on cluster (\S+))?", line):
            return Answer(match[1], match[2] or "")
    return None


def my_jobs(clusters: str = "") -> list[Job]:
    """The user's jobs that are queued or running on `clusters`, separated by commas; empty: on the default cluster.

    Raises:
        Refused: squeue fails.
    """
    return [job for cluster in dict.fromkeys(clusters.split(",")) for job in _my_jobs_on(cluster)]


def _my_jobs_on(cluster: str) -> list[Job]:
    command = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", f"--format={FORMAT}"]
    done = _run([*command, *cluster_flag(cluster)])
    if done.returncode:
        raise Refused(f"squeue cannot list your jobs: {error_text(done.stderr)}")
    rows = (line.strip().split("|", 3) for line in done.stdout.splitlines())
    return [Job(row[0], row[1], row[2], row[3], cluster) for row in rows if len(row) == 4 and is_job_id(row[0])]


def find_by_owner(owner: str, index: str, jobs: Sequence[Job], token: str = "") -> Job | None:
    """The job that owns a run; None if it is not among `jobs`.

    Args:
        owner: `owner` in status.json: `slurm:` and the job id, or the token in the job's comment.
        index: name of the run folder. All elements of an array have the same comment; the index selects the element.
        jobs: the jobs to search.
        token: the one that was recorded with the job id in `owner`.
    """
    name = owner.removeprefix(contract.SLURM)
    for job in jobs:
        element = job.id.partition("_")[2]
        if name == job.id and is_of_submission(job.comment, token) is not False:
            return job
        if name in job.comment.split() and element in ("", index):
            return job
    return None


def find_by_token(token: str, clusters: str = "", pauses: Sequence[float] = (0, 1, 2, 4)) -> Job | None:
    """The job with `token` in its comment. squeue is called after each of `pauses`, in seconds: Slurm may be slow."""
    for pause in pauses:
        time.sleep(pause)
        try:
            matching = [job for job in my_jobs(clusters) if token in job.comment.split()]
        except Refused:
            continue
        if matching:
            return matching[0]
    return None


def objection(plan: Plan) -> str:
    """Why Slurm rejects the batch script of `plan`, from `sbatch --test-only`; empty if it accepts it.

    Raises:
        Refused: sbatch cannot be run.
    """
    done = _run([*plan.argv, "--test-only"], plan)
    return error_text(done.stderr) if done.returncode else ""


def max_array_size(clusters: str) -> int | None:
    """Slurm's bound on the index of an array's element, which is below it; None if scontrol does not show it."""
    shown = _run(["scontrol", *cluster_flag(clusters), "show", "config"]).stdout
    match = re.search(r"^MaxArraySize\s*=\s*([0-9]+)$", shown, re.MULTILINE)
    return int(match[1]) if match else None


def exit_code(job: Answer) -> tuple[int, str]:
    """Exit code and node of a batch script that ended recently; 0 and an empty name if Slurm does not know it."""
    shown = _run(["scontrol", "--oneliner", *cluster_flag(job.cluster), "show", "job", job.id]).stdout
    code, host = re.search(r"\bExitCode=([0-9]+):", shown), re.search(r"\bBatchHost=(\S+)", shown)
    return int(code[1]) if code else 0, host[1] if host else ""


def unavailable(partition: str, clusters: str) -> str:
    """The nodes, and the partition if it is not up, that cannot start jobs now, with their states.

    Empty if all are available, or if sinfo fails.
    """
    command = ["sinfo", "--noheader", "--Node", "--format=%N|%t|%P|%a"]
    done = _run([*command, *([f"--partition={partition}"] if partition else []), *cluster_flag(clusters)])
    rows = (line.strip().split("|") for line in done.stdout.splitlines())
    states: dict[str, str] = {}
    for row in rows:
        if len(row) == 4 and (partition or row[2].endswith("*")):
            if row[3] != "up":
                states[f"partition {row[2].rstrip('*')}"] = row[3]
            elif UNAVAILABLE.match(row[1]):
                states[row[0]] = row[1]
    return ", ".join(f"{name} {state}" for name, state in states.items())


def error_text(stderr: str) -> str:
    """Slurm's error messages on one line."""
    lines = [
        re.sub(r"^(sbatch|squeue|sinfo|allocation failure): (error: )?", "", line.strip())
        for line in stderr.splitlines()
    ]
    return "; ".join(filter(None, lines)) or "no reason given"


def _run(command: Sequence[str], plan: Plan | None = None) -> subprocess.CompletedProcess[str]:
    script, directory = (plan.script, plan.directory) if plan else ("", None)
    try:
        return slurm_programs.run(command, SECONDS, script=script, directory=directory)
    except NoAnswerError as error:
        raise Refused(str(error)) from None
