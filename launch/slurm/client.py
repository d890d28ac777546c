"""What Slurm is asked: whether it would take a job, and what it knows of the user's jobs.

Answers are read strictly. A site may wrap Slurm's commands and print what it likes around them, so a line counts only
where it has exactly the form that the command itself gives.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass

from job.errors import Refused
from launch.plan import Plan
from launch.runs.slurm import is_job_id

SECONDS = 120
UNAVAILABLE = re.compile(r"(down|drain|drng|drained|fail|failg|maint|resv|reboot|unk|inval|npc|no_respond)|.*[*$@^]$")
"""How sinfo marks a node that does not start jobs now: by its state, or a sign behind it."""
FORMAT = "%i|%T|%r|%k"


@dataclass(frozen=True)
class Job:
    """A job that is queued or running."""

    id: str
    """Of an element of an array with its index: 12_3."""
    state: str
    """As Slurm spells it: PENDING, RUNNING, COMPLETING, ..."""
    reason: str
    """Why it is pending."""
    comment: str


@dataclass(frozen=True)
class Answer:
    """What sbatch says of a job that it queued."""

    id: str
    cluster: str
    """Empty unless sbatch was asked for another cluster."""


def read_answer(text: str) -> Answer | None:
    """The job that sbatch's output names; None where no line has the form of its answer."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if lines and (found := re.fullmatch(r"([0-9]+)(?:;(\S+))?", lines[-1])):
        return Answer(found[1], found[2] or "")
    for line in lines:
        if found := re.fullmatch(r"Submitted batch job ([0-9]+)(?: on cluster (\S+))?", line):
            return Answer(found[1], found[2] or "")
    return None


def my_jobs(cluster: str = "") -> list[Job]:
    """The user's jobs that are queued or running.

    Raises:
        Refused: squeue gives no answer.
    """
    words = ["squeue", "--noheader", "--array", f"--user={os.getuid()}", f"--format={FORMAT}"]
    done = _run([*words, *([f"--clusters={cluster}"] if cluster else [])])
    if done.returncode:
        raise Refused(f"Slurm cannot be asked for your jobs: {said(done.stderr)}")
    rows = (line.strip().split("|", 3) for line in done.stdout.splitlines())
    return [Job(*row) for row in rows if len(row) == 4 and is_job_id(row[0])]


def of_owner(owner: str, index: str, jobs: Sequence[Job]) -> Job | None:
    """The job that `owner`, as status.json has it, names: by its id, or by its comment, which an array has in common.

    `index` is the name of the run folder, by which the element of an array is known.
    """
    name = owner.removeprefix("slurm:")
    for job in jobs:
        element = job.id.partition("_")[2]
        if name == job.id or (name in job.comment.split() and element in ("", index)):
            return job
    return None


def find(token: str, cluster: str = "", pauses: Sequence[float] = (0, 1, 2, 4)) -> Job | None:
    """The job whose comment holds `token`; asked again after each of `pauses` seconds, as a controller may be slow."""
    for pause in pauses:
        time.sleep(pause)
        try:
            found = [job for job in my_jobs(cluster) if token in job.comment.split()]
        except Refused:
            continue
        if found:
            return found[0]
    return None


def test(plan: Plan) -> str:
    """What Slurm has against the batch script of `plan`, by `sbatch --test-only`; empty if nothing.

    Raises:
        Refused: sbatch does not run here.
    """
    done = _run([*plan.argv, "--test-only"], plan)
    return said(done.stderr) if done.returncode else ""


def exit_code(job: str) -> tuple[int, str]:
    """The exit code of a batch script that has ended minutes ago, and its node; 0 and nothing where Slurm forgot it."""
    shown = _run(["scontrol", "--oneliner", "show", "job", job]).stdout
    code, host = re.search(r"\bExitCode=([0-9]+):", shown), re.search(r"\bBatchHost=(\S+)", shown)
    return int(code[1]) if code else 0, host[1] if host else ""


def unavailable(partition: str) -> str:
    """The nodes that cannot start jobs now, with their states; empty if there are none, or Slurm does not say.

    A partition that is not up counts too.
    """
    words = ["sinfo", "--noheader", "--Node", "--format=%N|%t|%P|%a"]
    done = _run([*words, *([f"--partition={partition}"] if partition else [])])
    rows = (line.strip().split("|") for line in done.stdout.splitlines())
    states: dict[str, str] = {}
    for row in rows:
        if len(row) == 4 and (partition or row[2].endswith("*")):
            if row[3] != "up":
                states[f"partition {row[2].rstrip('*')}"] = row[3]
            elif UNAVAILABLE.match(row[1]):
                states[row[0]] = row[1]
    return ", ".join(f"{name} {state}" for name, state in states.items())


def said(stderr: str) -> str:
    """Slurm's errors as one line."""
    lines = [
        re.sub(r"^(sbatch|squeue|sinfo|allocation failure): (error: )?", "", line.strip())
        for line in stderr.splitlines()
    ]
    return "; ".join(filter(None, lines)) or "it gives no reason"


def _run(words: Sequence[str], plan: Plan | None = None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words,
            input=plan.script if plan else "",
            cwd=plan.directory if plan else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Refused(f"{' '.join(words)} does not work here: {error}") from None
