"""Queue a planned job: what would be refused is found before anything is written, then the job and its files stay
together.

Folders are made exclusively, so that two submissions of the same second get two. Before sbatch is started, what this
process made is removed again if something fails; once it has been started nothing is, since Slurm may have the job.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from job import config as configuration
from job.errors import JobError, Refused
from job.run import folder as run_folder
from job.run import lock
from job.run.folder import RunFolder
from job.runtime import contract
from launch import records
from launch.console import warn
from launch.records import Record
from launch.slurm import client, worker
from launch.slurm.client import Answer
from launch.slurm.snapshot import take
from launch.slurm.submission import Request, Submission

NOT_NOW = re.compile(
    "node configuration is not available|nodes? (are )?(not available|busy)|partition not available", re.I
)
"""Objections that nodes or partitions raise which are only unavailable for a time, but not only those."""


def submit(request: Request, plan: Callable[[Request], Submission], flags: Sequence[str]) -> tuple[Submission, Answer]:
    """Queue the job of `request`; what was queued, and as which job.

    Args:
        request: what to run.
        plan: makes the submission of a request.
        flags: the launcher's command line, for the record.

    Raises:
        Refused: there is no Slurm here, it does not take the job, or another job has the run folder.
        JobError: whether Slurm took the job is not known.
    """
    if not (shutil.which("sbatch") and shutil.which("srun")):
        raise Refused("no Slurm here (sbatch and srun are not on PATH): submit on a login node, or look with --dry_run")
    with _outside_any_job():
        _ask_slurm(plan(request))
        if not request.is_new:
            _refuse_if_busy(request.run)
            run_folder.refuse_others(RunFolder(request.run), request.config)
        submission, made = _make_folders(request, plan)
        _make_caches(submission)
        answer = _queue(submission, made)
        _record(submission, answer, request, flags).write(submission.run)
        return submission, answer


def _ask_slurm(submission: Submission) -> None:
    """Refused for what Slurm will never start, before anything is written.

    `sbatch --test-only` also objects where nodes are only down or drained now. sbatch itself tells that apart, and
    queues the job or not.
    """
    objection = client.test(submission.plan)
    if not objection:
        return
    missing = client.unavailable(submission.parameters.get("partition", "")) if NOT_NOW.search(objection) else ""
    if not missing:
        raise Refused(f"Slurm does not take the job: {objection}")
    warn(f"the job cannot start now ({objection}): {missing}")


def _record(submission: Submission, answer: Answer, request: Request, flags: Sequence[str]) -> Record:
    return Record(
        "slurm",
        answer.id,
        list(flags),
        config=str((submission.folder / "config.yaml").relative_to(submission.run)),
        directory=str(submission.plan.directory),
        nodes=request.nodes,
        tasks=request.gpus or request.tasks or 1,
        cluster=answer.cluster,
    )


def _refuse_if_busy(run: Path) -> None:
    """Refused where a job that Slurm knows, or a process elsewhere, has this run folder."""
    status = records.read_status(run)
    state, owner = status.get("state"), str(status.get("owner", ""))
    if owner.startswith(("slurm:", "muster:")):
        name = owner.removeprefix("slurm:")
        known = [job for job in client.my_jobs() if name == job.id or name in job.comment.split()]
        if known:
            raise Refused(f"{run} has the job {known[0].id} ({known[0].state}): scancel {known[0].id} first, or choose "
                          "another --output_dir")  # fmt: skip
    if state == "RUNNING" and lock.moves(run):
        raise Refused(f"another run ({owner}) is active in {run}: wait until it ends, or choose another --output_dir")


def _make_folders(request: Request, plan: Callable[[Request], Submission]) -> tuple[Submission, list[Path]]:
    """The submission with a folder of its own, in a run folder of its own if that is new; and what was made for it."""
    for number in count(1):
        submission = plan(request.numbered(number))
        made = [path for path in (submission.folder.parent, *submission.folder.parent.parents) if not path.exists()]
        try:
            submission.run.mkdir(parents=True, exist_ok=not request.is_new)
            submission.folder.parent.mkdir(exist_ok=True)
            submission.folder.mkdir()
        except FileExistsError:
            continue
        except OSError as error:
            _discard(submission.folder, made)
            raise Refused(f"{submission.run} cannot be written: {error.strerror}") from None
        return submission, made
    raise AssertionError


def _make_caches(submission: Submission) -> None:
    for path in submission.caches:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warn(f"the cache {path} cannot be made ({error.strerror}): the container will not see it")


def _discard(folder: Path, made: Sequence[Path]) -> None:
    """Remove the submission's own folder, and those around it that were made for it, unless somebody uses them too."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in made:
        with suppress(OSError):
            path.rmdir()


def _queue(submission: Submission, made: Sequence[Path]) -> Answer:
    """Write what the job needs, then call sbatch."""
    from launch.slurm.executor import Executor

    executor = Executor(submission.run / contract.JOBS / "%j", submission.python, submission.token)
    executor.update_parameters(**submission.parameters)
    status = RunFolder(submission.run).status
    before = status.read_bytes() if status.exists() else None
    try:
        _write(submission)
        executor.submit(worker.run, *submission.argv)
    except BaseException as error:
        if not executor.started:
            _put_back(status, before)
            _discard(submission.folder, made)
        elif isinstance(error, Refused):
            records.write_refused(submission.run, submission.token, str(error))
        if isinstance(error, OSError):
            raise _incomplete(submission, executor.answer, error) from None
        raise
    assert executor.answer is not None
    return executor.answer


def _write(submission: Submission) -> None:
    """The code and the settings as they are now, which is how they will run; and that the run is queued."""
    take(submission.code, submission.folder / "code")
    text = configuration.to_yaml(submission.config)
    (submission.folder / "config.yaml").write_text(text, encoding="utf-8")
    if not RunFolder(submission.run).is_finished() or submission.config.run.overwrite_output_dir:
        records.write_queued(submission.run, submission.token)


def _incomplete(submission: Submission, answer: Answer | None, error: OSError) -> JobError:
    written = f"{submission.run} cannot be written: {error.strerror}"
    if answer is None:
        return Refused(f"{written}; nothing was queued: make room there, or choose another --output_dir")
    return JobError(f"{written}, but job {answer.id} is queued: scancel {answer.id}, make room and submit again")


def _put_back(path: Path, content: bytes | None) -> None:
    with suppress(OSError):
        if content is None:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != content:
            path.write_bytes(content)


@contextmanager
def _outside_any_job() -> Iterator[None]:
    """Hide the variables of a job that we may run in, and SBATCH_*, which would beat the script's own flags.

    SLURM_CONF, which says where the cluster is, stays.
    """
    from submitit.helpers import clean_env

    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield
