"""Finds run folders, sweeps and jobs by what a user types, without changing anything."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from job.errors import Refused
from job.run.folder import RunFolder
from job.runtime.contract import JOBS
from job.runtime.files import read_json
from launch.runs.reading import is_file, is_folder, mode
from launch.runs.run_state import newest_job, started, submitted

SWEEP = "sweep.json"
"""File in a sweep's folder that lists its elements."""
STOP = ".stop"
"""File in the folder of a sweep that runs on this machine: it stops."""
RUNS = Path("runs")
LATEST = "latest"


def is_run(path: Path) -> bool:
    """Whether `path` is a run folder, even if its job has not started."""
    return any(mode(path / name) for name in ("status.json", "manifest.json", JOBS))


def is_sweep(path: Path) -> bool:
    """Whether `path` is the folder of a sweep, which contains numbered run folders."""
    return is_file(path / SWEEP)


def reference(path: Path) -> str:
    """How the command line names a run: by its name if it is in runs/, else by its path."""
    return path.name if path.absolute().parent == RUNS.absolute() else str(path)


def sweeps(folder: Path = RUNS) -> list[Path]:
    """The sweeps directly below `folder`."""
    with contextlib.suppress(OSError):
        return sorted(path for path in folder.iterdir() if _is_own_folder(path) and is_sweep(path))
    return []


def find_sweep(name: str, folder: Path = RUNS) -> Path | None:
    """The sweep for a path, a name in `folder` or the job id of an array; None if there is no such sweep."""
    for path in (Path(name), folder / name) if name else ():
        if is_sweep(path):
            return path
    if name.isdigit() and (run := _run_of_job(name, folder)) and not job_folder(run, name):
        return run.parent
    return None


def elements(sweep: Path) -> list[Path]:
    """The existing run folders of a sweep, in order: those with a number as their name."""
    return sorted((path for path in below(sweep) if path.name.isdecimal()), key=lambda path: int(path.name))


def not_started(sweep: Path) -> list[str]:
    """The runs in a sweep's table that have no folder yet. A search continued with fewer trials has a shorter table."""
    table = read_json(sweep / SWEEP).get("elements")
    names = [str(one.get("run")) for one in table if isinstance(one, dict)] if isinstance(table, list) else []
    return [name for name in names if not is_run(sweep / name)]


def below(folder: Path = RUNS) -> list[Path]:
    """The run folders directly in `folder`, but links such as `latest`, and the doctor's. runs/ may not exist yet.

    Raises:
        Refused: the folder does not exist.
    """
    try:
        children = sorted(folder.iterdir())
    except OSError as error:
        if folder == RUNS and isinstance(error, FileNotFoundError):
            return []
        raise Refused(f"{folder} cannot be read ({error.strerror}): give a run or a folder of runs") from None
    return [path for path in children if not path.name.startswith(".") and _is_own_folder(path) and is_run(path)]


def _is_own_folder(path: Path) -> bool:
    """Whether `path`, which is in a listed folder, is itself a folder and no link to one."""
    return is_folder(path) and not path.is_symlink()


def find(run: str, folder: Path = RUNS) -> Path:
    """The run folder for a path, a name, a job id or `latest`; names and ids are looked up in `folder`.

    Raises:
        Refused: there is no such run.
    """
    if run == LATEST:
        return _latest(folder)
    for path in (Path(run), folder / run) if run else ():
        if is_run(path):
            return path.resolve() if path.is_symlink() else path
    if sweep := find_sweep(run, folder):
        raise Refused(f"{run} is a sweep of {len(elements(sweep))} runs: name one, as {sweep}/0")
    if of_job := _run_of_job(run, folder):
        return of_job
    raise Refused(f"no run {run}: give its folder, or, for a run in {folder}/, its name, its job id or `latest`")


def _run_of_job(id: str, folder: Path) -> Path | None:
    """The run whose job has this id, or is an element of the array with this id; None if there is none.

    The newest of several: Slurm starts over with its ids after a reset.
    """
    in_sweeps = [path for sweep in sweeps(folder) for path in below(sweep)]
    jobs = {path: job for path in (*below(folder), *in_sweeps) if (job := job_folder(path, id))}
    elements = {path: job for path in in_sweeps for job in (path / JOBS).glob(f"{id}_*") if id.isdigit()}
    found = {**elements, **jobs}
    return max(found, key=lambda path: submitted(found[path]), default=None)


def job_folder(run: Path, id: str) -> Path | None:
    """The folder of the job with this id in a run folder; None if it has no such job, or `id` is a path."""
    if id in ("", ".", "..") or os.sep in id:
        return None
    path = run / JOBS / id
    return path if is_folder(path) else None


def newest_submission(folder: Path = RUNS) -> Path:
    """The run in `folder` that was submitted last, whether started or not.

    Raises:
        Refused: there is no submitted run, or the newest is of a sweep, where one of many is not meant by `latest`.
    """
    groups = [below(folder), *map(elements, sweeps(folder))]
    times = {path: submitted(job.folder) for group in groups for path in group if (job := newest_job(path))}
    if not times:
        raise Refused(f"no submitted runs in {folder}/: give a run by name")
    newest = max(times, key=lambda path: times[path])
    if is_sweep(newest.parent):
        raise Refused(
            f"the newest submission is in the sweep {newest.parent}: name the sweep, or a run of it, as {newest}"
        )
    return newest


def _latest(folder: Path) -> Path:
    """The run that started last, from the link `latest`, else by the recorded times."""
    if is_run(folder / LATEST):
        return (folder / LATEST).resolve()
    runs = below(folder)
    if not runs:
        raise Refused(f"no runs in {folder}/: give the folder of a run")
    return max(runs, key=lambda path: started(path, newest_job(path), read_json(RunFolder(path).manifest)))
