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
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from job import config as configuration
from job.errors import JobError, Refused
from job.run import folder as run_folder
from job.run import lock
from job.run.folder import RunFolder
from launch import records
from launch.console import warn
from launch.plan import Plan
from launch.records import Record
from launch.slurm import client, worker
from launch.slurm.client import Answer
from launch.slurm.snapshot import take
from launch.slurm.submission import Member, Request, Submission

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
    with outside_any_job():
        _ask_slurm(plan(request))
        if not request.is_new:
            members = plan(request).members
            _refuse_if_busy([member.run for member in members])
            for member in members:
                run_folder.refuse_others(RunFolder(member.run), member.config)
        submission, made = _make_folders(request, plan)
        _make_caches(submission)
        answer = _queue(submission, made)
        for member in submission.members:
            _record(submission, member, answer, request, flags).write(member.run)
        return submission, answer


def _ask_slurm(submission: Submission) -> None:
    """Refused for what Slurm will never start, before anything is written.

    `sbatch --test-only` also objects where nodes are only down or drained now. sbatch itself tells that apart, and
    queues the job or not.
    """
    objection, missing = objection_to(submission.plan, submission.parameters.get("partition", ""))
    if objection and not missing:
        raise Refused(f"Slurm does not take the job: {objection}")
    if objection:
        warn(f"the job cannot start now ({objection}): {missing}")


def objection_to(plan: Plan, partition: str) -> tuple[str, str]:
    """Slurm's objection to a job, and the nodes that only are unavailable now where that may be all there is to it."""
    objection = client.test(plan)
    return objection, client.unavailable(partition) if NOT_NOW.search(objection) else ""


def _record(submission: Submission, member: Member, answer: Answer, request: Request, flags: Sequence[str]) -> Record:
    return Record(
        "slurm",
        member.job_id(answer.id),
        list(flags),
        config=os.path.relpath(member.file, member.run),
        directory=str(submission.plan.directory),
        nodes=request.nodes,
        tasks=request.gpus or request.tasks or 1,
        cluster=answer.cluster,
    )


def _refuse_if_busy(runs: Sequence[Path]) -> None:
    """Refused where a job that Slurm knows, or a process elsewhere, has one of these run folders."""
    found = {run: records.read_status(run) for run in runs}
    owners = {run: str(status.get("owner", "")) for run, status in found.items()}
    queued = {run: owner for run, owner in owners.items() if owner.startswith(("slurm:", "muster:"))}
    known = client.my_jobs() if queued else []
    for run, owner in queued.items():
        if job := client.of_owner(owner, run.name, known):
            raise Refused(
                f"{run} has the job {job.id} ({job.state}): scancel {job.id} first, or choose another --output_dir"
            )
    silent = [run for run, status in found.items() if status.get("state") == "RUNNING"]
    with ThreadPoolExecutor(max(1, len(silent))) as pool:  # each is watched for 20 seconds
        for run, active in zip(silent, pool.map(lock.is_active, silent), strict=True):
            if active:
                raise Refused(f"another run ({owners[run]}) is active in {run}: wait until it ends, or choose another "
                              "--output_dir")  # fmt: skip


def _make_folders(request: Request, plan: Callable[[Request], Submission]) -> tuple[Submission, list[Path]]:
    """The submission with a folder of its own, in a run folder of its own if that is new; and what was made for it."""
    for number in count(1):
        submission = plan(request.numbered(number))
        around = (*(member.run for member in submission.members), submission.folder.parent)
        made = [path for path in (*around, *submission.folder.parent.parents) if not path.exists()]
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

    indexes = [member.index for member in submission.members if member.index is not None]
    executor = Executor(submission.jobs, submission.python, submission.token, indexes)
    executor.update_parameters(**submission.parameters)
    statuses = [RunFolder(member.run).status for member in submission.members]
    before = {status: status.read_bytes() if status.exists() else None for status in statuses}
    try:
        _write(submission)
        if indexes:
            executor.map_array(worker.run, *zip(*(member.argv for member in submission.members), strict=True))
        else:
            executor.submit(worker.run, *submission.members[0].argv)
    except BaseException as error:
        if not executor.started:
            for status, content in before.items():
                _restore(status, content)
            _discard(submission.folder, made)
        elif isinstance(error, Refused):
            for member in submission.members:
                records.write_refused(member.run, submission.token, str(error))
        if isinstance(error, OSError):
            raise _incomplete(submission, executor.answer, error) from None
        raise
    assert executor.answer is not None
    return executor.answer


def _write(submission: Submission) -> None:
    """The code and the settings as they are now, which is how they will run; and that the run is queued."""
    take(submission.code, submission.folder / "code")
    for member in submission.members:
        member.file.write_text(configuration.to_yaml(member.config), encoding="utf-8")
        member.run.mkdir(exist_ok=True)
        if not RunFolder(member.run).is_finished() or member.config.run.overwrite_output_dir:
            records.write_queued(member.run, submission.token)


def _incomplete(submission: Submission, answer: Answer | None, error: OSError) -> JobError:
    written = f"{submission.run} cannot be written: {error.strerror}"
    if answer is None:
        return Refused(f"{written}; nothing was queued: make room there, or choose another --output_dir")
    return JobError(f"{written}, but job {answer.id} is queued: scancel {answer.id}, make room and submit again")


def _restore(path: Path, content: bytes | None) -> None:
    with suppress(OSError):
        if content is None:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != content:
            path.write_bytes(content)


@contextmanager
def outside_any_job() -> Iterator[None]:
    """Hide the variables of a job that we may run in, and SBATCH_*, which would beat the script's own flags.

    SLURM_CONF, which says where the cluster is, stays.
    """
    from submitit.helpers import clean_env

    conf = os.environ.get("SLURM_CONF")
    with clean_env():
        if conf is not None:
            os.environ["SLURM_CONF"] = conf
        yield
