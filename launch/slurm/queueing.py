"""Queues a planned job: everything is checked before anything is written.

Folders are created exclusively, so that two submissions in the same second get different folders. If something fails
before sbatch is started, the files and folders of the submission are removed. Afterwards nothing is removed, because
Slurm may have the job.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path

from job import config as configuration
from job.errors import JobError, Refused
from job.run import folder as run_folder
from job.run import lock
from job.run.folder import RunFolder
from job.runtime import contract, files
from launch import records
from launch.console import warn
from launch.plan import Plan
from launch.records import Record
from launch.runs import run_state
from launch.runs.slurm_programs import ACCESS
from launch.slurm import client, snapshot, worker
from launch.slurm.client import Answer
from launch.slurm.submission import Member, Request, Submission

MAYBE_TEMPORARY = re.compile(
    "node configuration is not available|nodes? (are )?(not available|busy)|partition not available", re.I
)
"""Objections that may only mean that nodes or a partition are unavailable at the moment."""


def submit(
    request: Request,
    plan: Callable[[Request], Submission],
    flags: Sequence[str],
    announce: Callable[[Submission, Answer], object],
) -> Answer:
    """Queue the job of `request`; returns sbatch's answer.

    Args:
        request: what to run.
        plan: makes a submission from a request.
        flags: the launcher's command line, which is recorded in job.json.
        announce: tells the user what was queued. Interrupts are held until then: a job whose id was never printed
            would be submitted twice.

    Raises:
        Refused: there is no Slurm here, it rejects the job, or another job uses the run folder.
        JobError: it is unknown whether Slurm queued the job, or the job is queued but could not be recorded.
    """
    if not (shutil.which("sbatch") and shutil.which("srun")):
        raise Refused("no Slurm here (sbatch and srun are not on PATH): submit on a login node, or look with --dry_run")
    with outside_any_job(), ExitStack() as held:
        first = plan(request)
        _test_submission(first)
        if not request.is_new:
            _refuse_if_busy([member.run for member in first.members], first.clusters)
            for member in first.members:
                run_folder.refuse_others(RunFolder(member.run), member.config)
        submission, new_folders = _make_folders(request, plan)
        _make_caches(submission)
        answer = _queue(submission, new_folders, held)
        try:
            for member in submission.members:
                _record(submission, member, answer, request, flags).write(member.run)
        except OSError as error:
            raise _incomplete(submission, answer, error) from None
        announce(submission, answer)
        return answer


def _test_submission(submission: Submission) -> None:
    """Refused if Slurm would never start the job; called before anything is written.

    `sbatch --test-only` also objects if nodes are only down or drained at the moment. sbatch itself distinguishes the
    two cases, so then there is only a warning.
    """
    objection, missing = objection_to(submission.plan, submission.parameters.get("partition", ""), submission.clusters)
    if "job array specification" in objection and (limit := client.max_array_size(submission.clusters)):
        raise Refused(f"Slurm does not take the job: {objection}; the numbers of a sweep's runs must be below "
                      f"MaxArraySize ({limit}) here: split it into several sweeps")  # fmt: skip
    if objection and not missing:
        raise Refused(f"Slurm does not take the job: {objection}")
    if objection:
        warn(f"the job cannot start now ({objection}): {missing}")


def objection_to(plan: Plan, partition: str, clusters: str) -> tuple[str, str]:
    """Slurm's objection to a job; and the nodes that are unavailable at the moment, if they may be the only reason."""
    objection = client.objection(plan)
    return objection, client.unavailable(partition, clusters) if MAYBE_TEMPORARY.search(objection) else ""


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
        token=submission.token,
    )


def _refuse_if_busy(runs: Sequence[Path], clusters: str) -> None:
    """Refused if a job that Slurm knows, or another process, uses one of these run folders.

    The job of an earlier submission may be on one of `clusters`, where this one goes, or on the one in its record.
    """
    statuses = {run: lock.read_status(run) for run in runs}
    owners = {run: str(status.get("owner", "")) for run, status in statuses.items()}
    queued = {run: owner for run, owner in owners.items() if owner.startswith((contract.SLURM, "muster:"))}
    known = {places: client.my_jobs(places) for places in {clusters, *map(_recorded_cluster, queued)}} if queued else {}
    for run, owner in queued.items():
        places = {_recorded_cluster(run)} if owner.startswith(contract.SLURM) else {clusters, _recorded_cluster(run)}
        jobs = [job for name in sorted(places) for job in known[name]]
        if job := client.find_by_owner(owner, run.name, jobs, _recorded_token(run, owner)):
            raise Refused(
                f"{run} has the job {job.id} ({job.state}): {job.scancel} first, or choose another --output_dir"
            )
    running = [run for run, status in statuses.items() if status.get("state") == "RUNNING"]
    with ThreadPoolExecutor(max(1, len(running))) as pool:  # each call watches for 20 seconds
        for run, active in zip(running, pool.map(lock.is_active, running), strict=True):
            if active:
                raise Refused(f"another run ({owners[run]}) is active in {run}: wait until it ends, or choose another "
                              "--output_dir")  # fmt: skip


def _recorded_cluster(run: Path) -> str:
    """The cluster of the run's newest recorded job."""
    job = run_state.newest_job(run)
    return job.cluster if job else ""


def _recorded_token(run: Path, owner: str) -> str:
    """The token of the submission whose job owns the run; empty if it was not recorded."""
    record = run / contract.JOBS / owner.removeprefix(contract.SLURM) / contract.JOB
    return str(files.read_json(record).get("token", ""))


def _make_folders(request: Request, plan: Callable[[Request], Submission]) -> tuple[Submission, list[Path]]:
    """Create the submission's folders, under unused names; returns the submission and all new folders around it."""
    for number in count(1):
        submission = plan(request.numbered(number))
        own = [folder for member in submission.members for folder in (member.run / contract.JOBS, member.run)]
        needed = (*own, submission.folder.parent)
        new_folders = [path for path in (*needed, *submission.folder.parent.parents) if not path.exists()]
        try:
            submission.run.mkdir(parents=True, exist_ok=not request.is_new)
            submission.folder.parent.mkdir(exist_ok=True)
            submission.folder.mkdir()
        except FileExistsError:
            run_folder.refuse_blocked(submission.folder.parent)
            continue
        except OSError as error:
            _discard(submission.folder, new_folders)
            raise Refused(f"{submission.run} cannot be written: {error.strerror}") from None
        return submission, new_folders
    raise AssertionError


def _make_caches(submission: Submission) -> None:
    for path in submission.caches:
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            warn(f"the cache {path} cannot be created ({error.strerror}): it is not mounted in the container")


def _discard(folder: Path, new_folders: Sequence[Path]) -> None:
    """Remove the submission's folder, and those of `new_folders` that are empty."""
    shutil.rmtree(folder, ignore_errors=True)
    for path in new_folders:
        with suppress(OSError):
            path.rmdir()


def _queue(submission: Submission, new_folders: Sequence[Path], held: ExitStack) -> Answer:
    """Write the job's files, then call sbatch; from there on interrupts are held until `held` is closed."""
    from launch.slurm.executor import Executor

    indexes = [member.index for member in submission.members if member.index is not None]
    executor = Executor(submission.jobs, submission.python, submission.token, held, indexes)
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
            _discard(submission.folder, new_folders)
        elif isinstance(error, Refused):
            for member in submission.members:
                records.write_refused(member.run, submission.token, str(error))
        if isinstance(error, OSError):
            raise _incomplete(submission, executor.answer, error) from None
        raise
    assert executor.answer is not None
    return executor.answer


def _write(submission: Submission) -> None:
    """Copy the code and write the settings, which the job uses as they are now; set the status to QUEUED."""
    snapshot.copy(submission.code, submission.folder / "code")
    for member in submission.members:
        member.file.write_text(configuration.to_yaml(member.config), encoding="utf-8")
        (member.run / contract.JOBS).mkdir(parents=True, exist_ok=True)
        if not RunFolder(member.run).is_finished() or member.config.run.overwrite_output_dir:
            records.write_queued(member.run, submission.token)


def _incomplete(submission: Submission, answer: Answer | None, error: OSError) -> JobError:
    written = f"{submission.run} cannot be written: {error.strerror}"
    if answer is None:
        return Refused(f"{written}; nothing was queued: make room there, or choose another --output_dir")
    return JobError(f"{written}, but job {answer.id} is queued: {answer.scancel}, make room and submit again")


def _restore(path: Path, content: bytes | None) -> None:
    with suppress(OSError):
        if content is None:
            path.unlink(missing_ok=True)
        elif path.read_bytes() != content:
            path.write_bytes(content)


@contextmanager
def outside_any_job() -> Iterator[None]:
    """Hide the variables of a job in which this process may run, and SBATCH_*, which would override the script's flags.

    Those by which sbatch reaches the cluster are kept.
    """
    from submitit.helpers import clean_env

    access = {name: os.environ[name] for name in ACCESS if name in os.environ}
    with clean_env():
        os.environ.update(access)
        yield
