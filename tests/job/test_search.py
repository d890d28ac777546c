"""Runs that are trials of a search: settings from the study, evaluations reported to it, and a final end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from job import config
from job.run import lock, trial
from job.run.space import Choices, Range, Space
from tests.support.interrupted import World, metrics, status

WORLD = {"num_train_epochs": 1, "early_stopping_patience": 9}
SPACE: Space = {"weight_decay": Range(0.0, 0.1), "learning_rate": Choices((1e-2, 3e-2))}


def prepared(sweep: Path, number: int, space: Space = SPACE) -> Path:
    run = sweep / str(number)
    run.mkdir(parents=True)
    trial.prepare(run, space, sweep)
    return run


def trials_of(run: Path) -> list[tuple[str, float | None]]:
    return [(one.state.name, one.value) for one in trial._study(run).trials]


def others(sweep: Path, *scores: float) -> None:
    """Five finished trials, each with these scores of its evaluations, or the same one from its first on."""
    for number in range(100, 105):
        started, _ = trial.ask(prepared(sweep, number), config.Config())
        lock.release(sweep / str(number))
        assert started is not None
        for step, score in zip((5, 10, 15), scores * (3 // len(scores)), strict=True):
            started.report(score, greater=True, progress=step / 15)
        started.end()


def test_an_interrupted_trial_keeps_its_settings_and_reports_its_best_evaluation(world: World, tmp_path: Path) -> None:
    run = prepared(tmp_path, 0)
    world.run(run, faults="0:step:7:SIGTERM").expect(75)
    chosen = trial.settings(run)
    assert set(chosen) == set(SPACE) and trials_of(run) == [("RUNNING", None)]
    written = config.as_dict(config.load_recipe(str(run / "config.yaml")))
    assert {name: written[name] for name in chosen} == chosen
    world.run(run).expect(0)
    assert trial.settings(run) == chosen
    accuracies = [record["accuracy"] for record in metrics(run) if record["split"] == "eval"]
    assert trials_of(run) == [("COMPLETE", -max(accuracies))]
    assert json.loads((run / "results.json").read_text())["eval"]["accuracy"] == max(accuracies)
    assert "nothing to do" in world.run(run).expect(0).stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_worse_trial_is_pruned_and_never_restarted(world: World, tmp_path: Path, processes: int) -> None:
    others(tmp_path, 2.0)
    run = prepared(tmp_path, 0)
    output = world.run(run, processes=processes).expect(0).stderr
    assert "pruned at step 5/15: accuracy " in output and "error" not in output
    assert (status(run)["state"], status(run)["reason"], status(run)["step"]) == ("DONE", "pruned", 5)
    assert trials_of(run)[-1][0] == "PRUNED"
    assert [record["step"] for record in metrics(run) if record["split"] == "train"] == [3, 5], "none is left out"
    assert not (run / "results.json").exists() and not (run / "checkpoints").exists()
    before = status(run)
    assert "nothing to do: the trial in " in world.run(run, processes=processes).expect(0).stderr
    assert (status(run), len(trials_of(run))) == (before, 6)


def test_a_better_trial_is_not_pruned(world: World, tmp_path: Path) -> None:
    others(tmp_path, -1.0)
    run = prepared(tmp_path, 0)
    world.run(run).expect(0)
    assert trials_of(run)[-1][0] == "COMPLETE" and status(run)["reason"] == ""


def test_a_trial_that_stops_early_is_finished_and_not_pruned(world: World, tmp_path: Path) -> None:
    """Its last evaluation is worse than those of the others at that step."""
    others(tmp_path, -1.0, 2.0, 2.0)
    run = prepared(tmp_path, 0, {"weight_decay": Range(0.0, 0.1)})
    output = world.run(run, learning_rate=1e-12, early_stopping_patience=1).expect(0).stderr
    assert "pruned" not in output
    assert (status(run)["state"], status(run)["reason"], status(run)["step"]) == ("DONE", "", 10)
    assert trials_of(run)[-1][0] == "COMPLETE" and (run / "results.json").exists()


def test_a_non_finite_loss_is_the_result_of_the_trial(world: World, tmp_path: Path) -> None:
    run = prepared(tmp_path, 0, {"learning_rate": Choices((1e37, 2e37))})
    output = world.run(run, max_grad_norm=0).expect(0).stderr
    assert "pruned: the loss" in output
    assert (status(run)["state"], status(run)["reason"], trials_of(run)[0][0]) == ("DONE", "pruned", "PRUNED")
