"""Run folders with any content are read: what is missing or damaged hides nothing else."""

import os
from pathlib import Path

import pytest

from launch.runs import run_state
from tests.launch.runs import synthetic

FILES = ("status.json", "manifest.json", "metrics.jsonl", "results.json", "config.yaml", "jobs/7/job.json")
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
    actual = run_state.read(path)
    assert (actual.name, actual.state, actual.step, actual.steps) == ("a", "RUNNING", 30, 100)
    assert actual.job is not None
    assert (actual.job.id, actual.job.launcher, actual.job.flags) == ("7", "slurm", ("--gpus", "2"))
    assert actual.score == run_state.Score("accuracy", 0.9)
    assert actual.seconds_per_step == 2.0, "32 examples a step at 16 a second"
    assert actual.heartbeat == synthetic.NOW - 1
    assert actual.started == synthetic.NOW - 600


def test_the_score_so_far_is_the_best_evaluation_of_the_deciding_metric(runs: Path) -> None:
    better = {"loss": 0.4, "accuracy": 0.8, "f1_macro": 0.9}
    worse = {"loss": 0.3, "accuracy": 0.9, "f1_macro": 0.7, "best": False}
    path = synthetic.run(runs / "a", settings={"metric_for_best_model": "f1_macro"}, scores=[better, worse])
    assert run_state.read(path).score == run_state.Score("f1_macro", 0.9)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("rubbish", RUBBISH)
def test_a_damaged_file_hides_only_its_own_content(name: str, rubbish: str, runs: Path) -> None:
    path = synthetic.finished(runs / "a", {"accuracy": 0.9}, job="7", step=30)
    (path / name).write_bytes(RUBBISH[rubbish])
    actual = run_state.read(path)
    assert actual.state == "DONE", "results.json says so where status.json does not"
    assert actual.step == (30 if name != "status.json" else 0)
    assert actual.job is not None and actual.job.id == "7"


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_place_of_a_file_is_ignored(name: str, runs: Path) -> None:
    path = synthetic.run(runs / "a", job="7")
    (path / name).unlink(missing_ok=True)
    (path / name).mkdir()
    run_state.read(path)


def test_long_metrics_are_read_from_the_end(runs: Path) -> None:
    path = synthetic.run(runs / "a", scores=[{"loss": 1.0, "accuracy": 0.5}])
    line = '{"step": 9, "split": "train", "examples_per_second": 8.0, "loss": 1.0}\n'
    last = '{"step": 99, "split": "eval", "loss": 0.1, "accuracy": 0.75, "best": true}\n'
    with (path / "metrics.jsonl").open("a") as file:
        file.write(line * 40_000 + last + line[:20])
    actual = run_state.read(path)
    assert actual.score == run_state.Score("accuracy", 0.75)
    assert actual.seconds_per_step == 4.0


def test_the_newest_submission_of_a_run_counts(runs: Path) -> None:
    path = synthetic.run(runs / "a", job="10", submitted=700)
    record = {"id": "9", "launcher": "slurm", "time": synthetic.moment(600)}
    synthetic.write(path / "jobs" / "9" / "job.json", record)
    (path / "jobs" / "submitted-20261126").mkdir()
    os.utime(path / "jobs" / "9" / "job.json", (1, 1))  # as a copy may leave it
    actual = run_state.newest_job(path)
    assert actual is not None and actual.id == "9"
    for job in ("9", "10"):
        (path / "jobs" / job / "job.json").unlink()
    actual = run_state.newest_job(path)
    assert actual is not None and actual.id == "10", "without records Slurm's ids say which is newer"
