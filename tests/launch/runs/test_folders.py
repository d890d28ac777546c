"""Finding the requested run."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from job.errors import Refused
from launch.runs import folders, run_state
from tests.launch.runs import synthetic

NOBODY = 65534
"""The user without rights, on Linux."""


def test_runs_are_the_folders_that_hold_a_status_a_manifest_or_jobs(runs: Path) -> None:
    synthetic.run(runs / "a")
    (runs / "b" / "jobs").mkdir(parents=True)
    (runs / "no-run" / "model").mkdir(parents=True)
    (runs / "latest").symlink_to("a")
    (runs / "file").touch()
    (runs / ".doctor-20260101-101500" / "jobs" / "7").mkdir(parents=True)
    assert [path.name for path in folders.below(runs)] == ["a", "b"]


def test_a_run_is_found_by_path_name_job_and_link(runs: Path) -> None:
    synthetic.run(runs / "a", job="7")
    synthetic.run(runs / "b", job="8")
    (runs / "latest").symlink_to("a")
    for name in ("runs/a", "a", "7", "latest", "runs/latest", str((runs / "a").absolute())):
        assert folders.find(name).resolve() == (runs / "a").resolve(), name


@pytest.mark.parametrize("newest", ["run", "sweep"])
def test_a_job_id_that_was_used_again_is_the_newest(newest: str, runs: Path) -> None:
    """A plain job's, or an array's."""
    sweep = runs / "lr-sweep"
    synthetic.write(sweep / "sweep.json", {"elements": []})
    jobs = {"run": synthetic.run(runs / "b", job="7"), "sweep": synthetic.run(sweep / "0", job="7_0")}
    submitted(synthetic.run(runs / "a", job="7"), 1)
    for name, path in jobs.items():
        submitted(path, 3 if name == newest else 2)
    assert folders.find_sweep("7") == (sweep if newest == "sweep" else None)
    if newest == "sweep":
        with pytest.raises(Refused, match=r"^7 is a sweep of 1 runs"):
            folders.find("7")
    else:
        assert folders.find("7") == runs / "b"
    assert folders.find("7_0") == sweep / "0"


def test_latest_is_the_newest_start_and_the_newest_submission(runs: Path) -> None:
    """The link moves when a job starts; a job submitted since may still wait."""
    for number, name in ((1, "b"), (0, "a")):
        path = synthetic.run(runs / name, job=str(number))
        submitted(path, number)
        synthetic.log(path, str(number), 0, "started")  # which changes the job's folder
    (runs / "latest").symlink_to("a")
    assert folders.find("latest").name == "a"
    assert folders.newest_submission(runs).name == "b"


def test_without_the_link_latest_is_the_newest_start(runs: Path) -> None:
    """Not the folder that was written to last: every run that trains writes a heartbeat."""
    for name, ago in (("b", 10), ("a", 500), ("c", 20)):
        synthetic.run(runs / name, job=name, submitted=ago)
    assert folders.find("latest").name == "b"


def submitted(run: Path, second: int) -> None:
    """Set when the job of a run was submitted."""
    os.utime(next(run.glob("jobs/*/job.json")), (second, second))


def test_latest_names_the_sweep_if_that_was_submitted_last(runs: Path) -> None:
    sweep = runs / "lr-sweep"
    synthetic.write(sweep / "sweep.json", {"elements": []})
    for second, path in ((1, runs / "a"), (2, sweep / "0"), (3, sweep / "1")):
        submitted(synthetic.run(path, job=str(second)), second)
    with pytest.raises(
        Refused, match=r"^the newest submission is in the sweep runs/lr-sweep: name .* runs/lr-sweep/1$"
    ):
        folders.newest_submission(runs)
    submitted(runs / "a", 4)
    assert folders.newest_submission(runs) == runs / "a"


def test_the_runs_of_a_sweep_are_the_folders_with_a_number(runs: Path) -> None:
    for name in ("10", "2", "2-20260101-101500", "settings-old"):
        synthetic.run(runs / name)
    assert [path.name for path in folders.elements(runs)] == ["2", "10"]


def test_a_folder_of_somebody_else_is_not_a_run_and_hides_no_other(runs: Path) -> None:
    synthetic.run(runs / "a", job="7")
    synthetic.run(runs / "private", job="8").chmod(0)
    synthetic.run(runs / "b", job="9")
    (runs / "b" / "jobs" / "9").chmod(0)
    synthetic.write(runs / "sweep" / "sweep.json", {"elements": []})

    def seen() -> None:
        assert [path.name for path in folders.below(runs)] == ["a", "b"]
        assert [path.name for path in folders.sweeps(runs)] == ["sweep"]
        job = run_state.read(runs / "b").job
        assert job is not None and job.id == "9"
        with pytest.raises(Refused, match="no run private"):
            folders.find("private")

    as_nobody(seen)


def as_nobody(check: Callable[[], None]) -> None:
    """Run `check` in this working directory, in a child process that may not enter every folder as root may."""

    def run() -> None:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
        check()

    Path().chmod(0o755)  # pytest makes it private
    child = multiprocessing.get_context("fork").Process(target=run)
    child.start()
    child.join()
    assert child.exitcode == 0


@pytest.mark.parametrize("name", ["c", "9", "runs/c", "", ".", "..", "./", "7/", "*", "jobs", "x" * 300, "a\0"])
def test_a_folder_that_is_not_a_run_is_rejected(name: str, runs: Path) -> None:
    synthetic.run(runs / "a", job="7")
    with pytest.raises(Refused, match="no run"):
        folders.find(name)
