"""submitit's executor, with a call of sbatch that loses no job.

submitit searches sbatch's output for the first number after "job", trusts the exit code, and, if it is interrupted, may
leave a queued job without its pickle. Here the output is parsed strictly, sbatch ignores Ctrl-C, and interrupts are
held until the job's files are in place. If sbatch fails or its output cannot be read, the job is looked up in Slurm by
its unique comment.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit import SlurmExecutor
from submitit.core.utils import DelayedSubmission, JobPaths

from job.errors import JobError, Refused
from launch.console import warn
from launch.slurm import client

INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Executor(SlurmExecutor):
    """Queues one job, or the elements `indexes` of one array.

    Attributes:
        token: unique text in the job's comment.
        held: from sbatch's start until the caller closes it, interrupts are held.
        started: whether sbatch was started, after which Slurm may have the job.
        answer: the job, once it is queued.
    """

    def __init__(
        self, folder: Path, python: str, token: str, held: contextlib.ExitStack, indexes: Sequence[int] = ()
    ) -> None:
        super().__init__(folder, python=python)
        self.token, self.held, self.indexes = token, held, tuple(indexes)
        self.started = False
        self.answer: client.Answer | None = None

    def _internal_process_submissions(self, delayed_submissions: list[DelayedSubmission]) -> list[Any]:
        """Like submitit, except for arrays: submitit would call its own executor and number the elements from 0."""
        if not self.indexes:
            return super()._internal_process_submissions(delayed_submissions)
        self.parameters["map_count"] = len(self.indexes)  # so that the logs are named by array and index
        pickles = [
            JobPaths.get_first_id_independent_folder(self.folder) / f"{uuid.uuid4().hex}.pkl" for _ in self.indexes
        ]
        try:
            for delayed, path in zip(delayed_submissions, pickles, strict=True):
                delayed.set_timeout(self.parameters["time"], self.max_num_timeout)
                delayed.dump(path)
            self._submit_command(self._submitit_command_str)
        except BaseException:
            if self.answer is None:
                for path in pickles:
                    path.unlink(missing_ok=True)
            raise
        assert self.answer is not None
        jobs = [self.job_class(folder=self.folder, job_id=f"{self.answer.id}_{index}") for index in self.indexes]
        for job, path in zip(jobs, pickles, strict=True):
            job.paths.move_temporary_file(path, "submitted_pickle")
        return jobs

    def _submit_command(self, command: str) -> Any:
        """Queue the batch script that runs `command`, and move the script to where the job expects it.

        Raises:
            Refused: Slurm rejects the job.
            JobError: it is unknown whether Slurm queued the job.
        """
        token = uuid.uuid4().hex
        script = JobPaths.get_first_id_independent_folder(self.folder) / f".submission_file_{token}.sh"
        script.write_text(self._make_submission_file_text(command, token), encoding="utf-8")
        interrupts = self.held.enter_context(interrupts_held())
        self.started = True
        clusters = str(self.parameters.get("additional_parameters", {}).get("clusters", ""))
        self.answer = queue(["sbatch", "--parsable", str(script)], self.token, clusters, interrupts)
        first = f"_{self.indexes[0]}" if self.indexes else ""
        job_id, tasks = f"{self.answer.id}{first}", list(range(self._num_tasks()))
        job = self.job_class(folder=self.folder, job_id=job_id, tasks=tasks)
        job.paths.move_temporary_file(script, "submission_file", keep_as_symlink=True)
        return job


@dataclass
class Interrupts:
    """The interrupts since sbatch was started: the job may be queued already, so its id must be read and recorded."""

    count: int = 0
    answer: client.Answer | None = None
    """The job, once it is queued."""

    def record(self, number: int, frame: object) -> None:
        """A signal handler. The second interrupt ends the wait for sbatch's answer."""
        self.count += 1
        if self.answer:
            self.warn()
        elif self.count > 1:
            raise KeyboardInterrupt
        else:
            warn("sbatch was started already: waiting for its answer, another interrupt ends that")

    def warn(self) -> None:
        if self.answer:
            warn(f"interrupted too late: the job was queued already; {self.answer.scancel} cancels it")


@contextlib.contextmanager
def interrupts_held() -> Iterator[Interrupts]:
    """Inside this context interrupts are recorded, and end nothing but the wait for sbatch's answer."""
    interrupts = Interrupts()
    before = {number: signal.signal(number, interrupts.record) for number in INTERRUPTS}
    try:
        yield interrupts
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def queue(command: list[str], token: str, clusters: str, interrupts: Interrupts) -> client.Answer:
    """Run sbatch and return the job that it queued.

    Args:
        command: sbatch, with the path of the script.
        token: unique text in the job's comment.
        clusters: where the job may be queued, as in sbatch's --clusters; empty: the default cluster.
        interrupts: those held while this runs.

    Raises:
        Refused: Slurm rejects the job.
        JobError: it is unknown whether Slurm queued the job.
    """
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by sbatch
    sbatch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    signal.signal(signal.SIGINT, before)
    try:
        out, err = sbatch.communicate()
    except KeyboardInterrupt:
        out = err = ""
        sbatch.kill()
    answer = client.read_answer(out) if sbatch.returncode == 0 else None
    if answer is None:
        answer = _looked_up(token, clusters, out, err, sbatch.returncode)
    interrupts.answer = answer
    if interrupts.count:
        interrupts.warn()
    return answer


def _looked_up(token: str, clusters: str, out: str, err: str, code: int | None) -> client.Answer:
    """The job with `token` in its comment, if Slurm has it; otherwise the error."""
    if job := client.find_by_token(token, clusters):
        warn(f"the output of sbatch cannot be read ({_shortened(out, err)}): the job was found by its comment")
        return client.Answer(job.id.partition("_")[0], job.cluster)
    if code and err.strip():
        raise Refused(f"Slurm does not take the job: {client.error_text(err)}")
    squeue = " ".join(["squeue --me", *client.cluster_flag(clusters), "--format='%A %k'"])
    raise JobError("whether Slurm took the job is not known: sbatch's answer cannot be read "
                   f"({_shortened(out, err)}) and no job has the comment {token} yet; "
                   f"`{squeue}` shows it if it comes, and its files are kept")  # fmt: skip


def _shortened(out: str, err: str) -> str:
    text = " ".join(f"{out} {err}".split())
    return repr(text[:200]) if text else "no output"
