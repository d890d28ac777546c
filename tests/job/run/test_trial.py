"""The trials of a search: settings drawn once, evaluations compared, and the journal that processes share."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from job import config
from job.config import Config
from job.errors import Refused
from job.run import lock, trial
from job.run.space import Choices, Range, Space
from job.run.trial import Trial

SPACE: Space = {
    "learning_rate": Range(1e-5, 1e-3, log=True),
    "train_batch_size": Range(8, 64, log=True),
    "weight_decay": Range(0.0, 0.1),
    "lr_scheduler_type": Choices(("linear", "cosine")),
}


def prepared(sweep: Path, number: int) -> Path:
    run = sweep / str(number)
    run.mkdir(parents=True)
    trial.prepare(run, SPACE, sweep)
    return run


def start(sweep: Path, number: int, base: Config | None = None) -> tuple[Trial, Config]:
    run = prepared(sweep, number)
    try:
        started, settings = trial.ask(run, base or Config())
    finally:
        lock.release(run)
    assert started is not None
    return started, settings


def test_a_trial_gets_settings_of_the_right_kind_within_the_space(tmp_path: Path) -> None:
    for number in range(12):
        started, settings = start(tmp_path, number, config.from_dict({"seed": 7}))
        training = settings.training
        assert 1e-5 <= training.learning_rate <= 1e-3 and 0 <= training.weight_decay <= 0.1
        assert type(training.train_batch_size) is int and 8 <= training.train_batch_size <= 64
        assert training.lr_scheduler_type in ("linear", "cosine")
        assert (training.seed, started.number) == (7, number)
        assert trial.settings(started.run) == dict(started.settings)


def test_the_largest_seed_has_trials_too(tmp_path: Path) -> None:
    largest = config.from_dict({"seed": 2**32 - 1})
    assert start(tmp_path, 0, largest)[1] != start(tmp_path, 1, largest)[1]


def test_a_restarted_trial_keeps_its_settings(tmp_path: Path) -> None:
    first, settings = start(tmp_path, 0)
    start(tmp_path, 1)
    trial.prepare(first.run, SPACE, tmp_path)
    again, same = trial.ask(first.run, Config())
    lock.release(first.run)
    assert (again, same) == (first, settings)


def test_a_run_that_is_not_a_trial_is_unchanged(tmp_path: Path) -> None:
    assert trial.ask(tmp_path, Config()) == (None, Config())
    assert (trial.settings(tmp_path), trial.was_pruned(tmp_path)) == ({}, False)


def test_a_trial_whose_file_is_damaged_is_rejected(tmp_path: Path) -> None:
    run = prepared(tmp_path, 0)
    (run / "trial.json").write_text("{", encoding="ascii")
    with pytest.raises(Refused, match=r"trial\.json cannot be read"):
        trial.ask(run, Config())
    lock.release(run)


@pytest.mark.parametrize("greater", [True, False])
def test_a_trial_below_the_median_is_pruned(tmp_path: Path, greater: bool) -> None:
    sign = 1 if greater else -1
    for number in range(6):
        started, _ = start(tmp_path, number)
        assert not started.report(sign * (0.5 + number / 100), greater=greater, progress=0.5)
        assert not started.report(sign * (0.6 + number / 100), greater=greater, progress=1)
        started.end()
    good, _ = start(tmp_path, 6)
    assert not good.report(sign * 0.9, greater=greater, progress=0.5)
    bad, _ = start(tmp_path, 7)
    assert bad.report(sign * 0.1, greater=greater, progress=0.5)
    assert not bad.report(sign * 0.1, greater=greater, progress=1), "a run that is over is not pruned"
    bad.end(pruned=True)
    assert trial.was_pruned(bad.run) and not trial.was_pruned(good.run)


def test_the_study_has_each_evaluation_once_and_the_best_one(tmp_path: Path) -> None:
    started, _ = start(tmp_path, 0)
    for progress, score in ((0.25, 0.5), (0.5, 0.8), (0.5, 0.1), (0.75, float("nan")), (1, 0.7)):
        started.report(score, greater=True, progress=progress)
    started.end()
    started.end()
    [recorded] = trial._study(started.run).trials
    assert (recorded.state.name, recorded.value) == ("COMPLETE", -0.8)
    assert list(recorded.intermediate_values) == [250, 500, 750, 1000]


def test_a_finished_trial_that_was_moved_does_not_need_its_search(tmp_path: Path) -> None:
    started, _ = start(tmp_path / "sweep", 0)
    started.report(0.5, greater=True, progress=1)
    started.end()
    moved = started.run.rename(tmp_path / "best")
    again, _ = trial.ask(moved, Config())
    lock.release(moved)
    assert again is not None
    again.end()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "sweep"]


def test_an_unfinished_trial_that_its_search_does_not_know_is_rejected(tmp_path: Path) -> None:
    started, _ = start(tmp_path, 0)
    (tmp_path / "study.journal").unlink()
    said = (
        r"chose the settings of .*/0 is not in .*/study\.journal: move both back, or delete .*/0/trial\.json to resume"
    )
    with pytest.raises(Refused, match=said):
        trial.ask(started.run, Config())
    assert not (tmp_path / "study.journal").exists()
    start(tmp_path, 1)
    for act in (lambda: trial.ask(started.run, Config()), started.end):
        with pytest.raises(Refused, match=said):
            act()
    lock.release(started.run)


def test_a_trial_without_any_number_is_recorded_as_pruned(tmp_path: Path) -> None:
    started, _ = start(tmp_path, 0)
    started.report(float("nan"), greater=True, progress=1)
    started.end()
    assert trial._study(started.run).trials[0].state.name == "PRUNED"


# ---------------------------------------------------------------------------------------------------------------------
# The journal's lock


def test_a_file_system_without_links_gets_a_lock_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepared(tmp_path, 0)

    def fail(*_: Any) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "symlink", fail)
    run = prepared(tmp_path, 1)
    kinds = [json.loads((tmp_path / str(n) / "trial.json").read_text())["lock"] for n in (0, 1)]
    assert kinds == ["symlink", "open"]
    assert trial.ask(run, Config())[0] is not None
    lock.release(run)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")], "the probe leaves nothing"


def _ask_and_tell(sweep: Path, number: int, barrier: Any) -> None:
    barrier.wait()
    started, _ = start(sweep, number)
    started.report(0.5, greater=True, progress=1)
    started.end()


@pytest.mark.parametrize("kind", ["symlink", "open"])
def test_concurrent_trials_get_different_settings(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_usable_lock", lambda _: kind)
    context, number = multiprocessing.get_context("fork"), 6
    barrier = context.Barrier(number)
    workers = [context.Process(target=_ask_and_tell, args=(tmp_path, n, barrier)) for n in range(number)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
    assert [worker.exitcode for worker in workers] == [0] * number
    known = [json.loads((tmp_path / str(n) / "trial.json").read_text()) for n in range(number)]
    assert sorted(one["number"] for one in known) == list(range(number))
    assert len({json.dumps(one["settings"]) for one in known}) == number
    assert [recorded.state.name for recorded in trial._study(tmp_path / "0").trials] == ["COMPLETE"] * number
