"""Reading run folders with any content, and finding the requested one."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from job.errors import Refused
from launch.runs import folders
from tests.launch.runs import synthetic

FILES = ("status.json", "manifest.json", "metrics.jsonl", "results.json", "config.yaml", "jobs/7/job.json")
NOBODY = 65534
"""The user without rights, on Linux."""
RUBBISH = {
    "empty": b"",
    "cut": b'{"state": "RUNN',
    "other JSON": b"[1, 2]",
    "no text": bytes(range(128, 256)),
    "wrong types": b'{"state": 3, "step": "x", "steps": true, "heartbeat": 7, "eval": [], "flags": 1, "id": null}',
    "deep": b'{"a": ' + b"[" * 100_000,
}


def test_a_run_folder_is_read_as_written_by_the_job(runs: Path) -> None:
    score = {"loss": 0.4, "accuracy": 0.9, "correct": 90, "f1_macro": 0.8}
    path = synthetic.run(runs / "a", job="7", step=30, steps=100, settings={"train_batch_size": 32}, scores=[score])
    actual = folders.read(path)
    assert (actual.name, actual.state, actual.step, actual.steps) == ("a", "RUNNING", 30, 100)
    assert actual.job is not None
    assert (actual.job.id, actual.job.launcher, actual.job.flags) == ("7", "slurm", ("--gpus", "2"))
    assert actual.score == folders.Score("accuracy", 0.9)
    assert actual.seconds_per_step == 2.0, "32 examples a step at 16 a second"
    assert actual.heartbeat == synthetic.NOW - 1
    assert actual.started == synthetic.NOW - 600


def test_the_score_so_far_is_the_best_evaluation_of_the_deciding_metric(runs: Path) -> None:
    better = {"loss": 0.4, "accuracy": 0.8, "f1_macro": 0.9}
    worse = {"loss": 0.3, "accuracy": 0.9, "f1_macro": 0.7, "best": False}
    path = synthetic.run(runs / "a", settings={"metric_for_best_model": "f1_macro"}, scores=[better, worse])
    assert folders.read(path).score == folders.Score("f1_macro", 0.9)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("rubbish", RUBBISH)
def test_a_damaged_file_hides_only_its_own_content(name: str, rubbish: str, runs: Path) -> None:
    path = synthetic.finished(runs / "a", {"accuracy": 0.9}, job="7", step=30)
    (path / name).write_bytes(RUBBISH[rubbish])
    actual = folders.read(path)
    assert actual.state == "DONE", "results.json says so where status.json does not"
    assert actual.step == (30 if name != "status.json" else 0)
    assert actual.job is not None and actual.job.id == "7"


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file_is_ignored(name: str, runs: Path) -> None:
    path = synthetic.run(runs / "a", job="7")
    (path / name).unlink(missing_ok=True)
    (path / name).mkdir()
    folders.read(path)


def test_long_metrics_are_read_from_the_end(runs: Path) -> None:
    path = synthetic.run(runs / "a", scores=[{"loss": 1.0, "accuracy": 0.5}])
    line = '{"step": 9, "split": "train", "examples_per_second": 8.0, "loss": 1.0}\n'
    last = '{"step": 99, "split": "eval", "loss": 0.1, "accuracy": 0.75, "best": true}\n'
    with (path / "metrics.jsonl").open("a") as file:
        file.write(line * 40_000 + last + line[:20])
    actual = folders.read(path)
    assert actual.score == folders.Score("accuracy", 0.75)
    assert actual.seconds_per_step == 4.0


def test_runs_are_the_folders_that_hold_a_status_a_manifest_or_jobs(runs: Path) -> None:
    synthetic.run(runs / "a")
    (runs / "b" / "jobs").mkdir(parents=True)
    (runs / "no-run" / "model").mkdir(parents=True)
    (runs / "latest").symlink_to("a")
    (runs / "file").touch()
    assert [path.name for path in folders.below(runs)] == ["a", "b"]


def test_a_run_is_found_by_path_name_job_and_link(runs: Path) -> None:
    synthetic.run(runs / "a", job="7")
    synthetic.run(runs / "b", job="8")
    (runs / "latest").symlink_to("a")
    for name in ("runs/a", "a", "7", "latest", "runs/latest", str((runs / "a").absolute())):
        assert folders.find(name).resolve() == (runs / "a").resolve(), name


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
        job = folders.read(runs / "b").job
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


@pytest.mark.parametrize("name", ["c", "9", "runs/c", "", ".", "..", "./", "7/", "*", "jobs", "x" * 300])
def test_a_folder_that_is_not_a_run_is_rejected(name: str, runs: Path) -> None:
    synthetic.run(runs / "a", job="7")
    with pytest.raises(Refused, match="no run"):
        folders.find(name)


def test_the_newest_submission_of_a_run_counts(runs: Path) -> None:
    path = synthetic.run(runs / "a", job="10")
    synthetic.write(path / "jobs" / "9" / "job.json", {"id": "9", "launcher": "slurm"})
    (path / "jobs" / "submitted-20261126").mkdir()
    os.utime(path / "jobs" / "10" / "job.json", (1, 1))
    actual = folders.newest_job(path)
    assert actual is not None and actual.id == "9"
    for job in ("9", "10"):
        (path / "jobs" / job / "job.json").unlink()
    actual = folders.newest_job(path)
    assert actual is not None and actual.id == "10", "without records Slurm's ids say which is newer"
