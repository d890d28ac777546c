"""`results`: means over seeds, sorted; only what differs is a column."""

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from job import config
from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind
from job.report.html import run_files, scoring
from job.training.best_model import selection
from launch import cli, make
from launch.runs import run_state
from tests.launch.runs import synthetic


def printed(capfd: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> tuple[str, str]:
    assert cli.main(["results", *argv]) == code
    out, err = capfd.readouterr()
    return out, err


def sweep(runs: Path) -> None:
    """Two learning rates, three seeds of one of them; and an unfinished run."""
    for name, seed, rate, accuracy in (
        ("a1", 1, 1e-5, 0.80),
        ("a2", 2, 1e-5, 0.84),
        ("a10", 10, 1e-5, 0.82),
        ("b1", 1, 3e-5, 0.90),
    ):
        settings = {"seed": seed, "learning_rate": rate, "max_tokens_per_device": 1000 * seed}
        scores = {"accuracy": accuracy, "correct": 80, "f1_macro": 1 - accuracy}
        synthetic.finished(runs / name, scores, settings=settings)
    synthetic.run(runs / "going-on", settings={"train_batch_size": 7})


def test_seeds_are_one_row_with_mean_and_deviation(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep(runs)
    assert printed(capfd)[0] == (
        "run            accuracy     std  runs  seeds   learning_rate\n"
        "b1               0.9000             1  1       3e-05\n"
        "a2 and 2 more    0.8200  0.0200     3  1 2 10  1e-05\n"
    )


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 10**400])
def test_a_score_that_is_no_finite_number_counts_as_missing(
    value: float, runs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for seed, accuracy in ((1, 0.8), (2, 0.6), (3, value)):
        synthetic.finished(runs / str(seed), {"accuracy": accuracy}, settings={"seed": seed})
    out, err = printed(capfd)
    assert out.splitlines()[1].split() == ["1", "and", "1", "more", "0.7000", "0.1414", "2", "1", "2"]
    assert err == "runs without accuracy: 3\n"
    assert cli.main(["status", "--json"]) == 0
    [score] = [run["score"] for run in json.loads(capfd.readouterr().out) if run["run"] == "3"]
    assert score is None


def test_a_run_in_place_of_a_folder_of_runs_is_named(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    synthetic.finished(runs / "a", {"accuracy": 0.5})
    message = "error: runs/a is a run: give the folder that it is in; `status runs/a` shows the run\n"
    assert printed(capfd, "runs/a", code=2)[1] == message


def test_finished_runs_without_any_number_are_rejected(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    synthetic.write(synthetic.run(runs / "a", "DONE") / "results.json", {"eval": {"accuracy": None}})
    message = "error: the finished runs in runs/ have no scores: their results.json holds no number\n"
    assert printed(capfd, code=2)[1] == message


def test_sorted_by_another_metric_and_its_direction(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep(runs)
    names = [line.split()[0] for line in printed(capfd, "--by", "f1_macro")[0].splitlines()[1:]]
    assert names == ["a1", "b1"]
    for name, loss in (("a1", 0.3), ("a2", 0.2), ("a10", 0.7), ("b1", 0.5)):
        path = runs / name / "results.json"
        values = json.loads(path.read_text())
        synthetic.write(path, {**values, "eval": {**values["eval"], "loss": loss}})
    rows = printed(capfd, "--by", "loss", "--csv")[0].splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == ["a2", "b1"], "less is better"


def test_csv_and_json_have_full_precision(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    sweep(runs)
    rows = list(csv.DictReader(printed(capfd, "--csv")[0].splitlines()))
    assert [row["run"] for row in rows] == ["b1", "a2"]
    assert float(rows[1]["accuracy"]) == statistics.fmean([0.80, 0.84, 0.82])
    assert float(rows[1]["std"]) == statistics.stdev([0.80, 0.84, 0.82])
    assert (rows[1]["seeds"], rows[1]["learning_rate"], rows[0]["std"]) == ("1 2 10", "1e-05", "")
    actual: list[dict[str, Any]] = json.loads(printed(capfd, "--json")[0])
    assert actual[1]["mean"] == float(rows[1]["accuracy"])
    assert {run["run"]: run["scores"]["correct"] for run in actual[1]["runs"]} == {"a1": 80, "a2": 80, "a10": 80}
    assert actual[1]["settings"]["learning_rate"] == 1e-5 and "seed" not in actual[1]["settings"]


def test_duplicate_seeds_and_other_data_are_distinguished(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for number, data in enumerate(("one", "one", "two")):
        path = synthetic.finished(runs / f"a{number}", {"accuracy": 0.8 + number / 100})
        synthetic.write(path / "manifest.json", {"dataset_fingerprint": data})
    rows = list(csv.DictReader(printed(capfd, "--csv")[0].splitlines()))
    assert [(row["run"], row["runs"], row["data"]) for row in rows] == [("a2", "1", "two"), ("a1", "2", "one")]


def test_runs_without_settings_are_not_grouped(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (synthetic.finished(runs / name, {"accuracy": 0.8}) / "config.yaml").unlink()
    assert len(printed(capfd)[0].splitlines()) == 3


def test_a_run_without_the_metric_is_named_and_left_out(runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    synthetic.finished(runs / "a", {"accuracy": 0.8})
    synthetic.finished(runs / "b", {"accuracy": None})
    synthetic.finished(runs / "broken", {"accuracy": 0.9})
    (runs / "broken" / "results.json").write_text("{")
    out, err = printed(capfd, "--by", "accuracy")
    assert [line.split()[0] for line in out.splitlines()] == ["run", "a"]
    assert err == "runs without accuracy: b\n"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ("--by f1", "--by f1 is not among the scores: choose one of loss, accuracy, rmse"),
        ("", "the runs have different deciding metrics (accuracy, rmse): choose one with --by"),
        ("nowhere", "nowhere cannot be read"),
        ("empty", "no finished runs in empty/"),
        ("--csv --json", "--json: not allowed with argument --csv"),
    ],
)
def test_invalid_requests_are_rejected(argv: str, message: str, runs: Path, capfd: pytest.CaptureFixture[str]) -> None:
    synthetic.finished(runs / "a", {"accuracy": 0.8})
    synthetic.finished(runs / "b", {"rmse": 0.8})
    Path("empty").mkdir()
    err = printed(capfd, *argv.split(), code=2)[1]
    assert err.startswith("error: ") and message.removeprefix("--json: ") in err


def test_make_passes_folder_and_metric() -> None:
    assert make.results_argv({"RUN": "sweeps/a", "BY": "f1_macro"}) == ["results", "sweeps/a", "--by=f1_macro"]


@pytest.mark.parametrize(
    ("settings", "kind", "number", "best"),
    [
        ({}, SINGLE_LABEL, "accuracy", 0.9),
        ({}, MULTI_LABEL, "f1_micro", 0.9),
        ({}, REGRESSION, "rmse", 0.1),
        ({"metrics": ["matthews_correlation"]}, SINGLE_LABEL, "matthews_correlation", 0.9),
        ({"metrics": ["/some/folder"]}, SINGLE_LABEL, "loss", 0.1),
        ({"metrics": ["f1", "/some/folder"]}, SINGLE_LABEL, "f1_macro", 0.9),
        ({"metric_for_best_model": "eval_f1_macro"}, SINGLE_LABEL, "f1_macro", 0.9),
        ({"metric_for_best_model": "eval_log_loss"}, SINGLE_LABEL, "log_loss", 0.1),
        ({"metric_for_best_model": "eval_furthest", "greater_is_better": False}, REGRESSION, "furthest", 0.1),
        ({"greater_is_better": False}, SINGLE_LABEL, "accuracy", 0.1),
    ],
)
def test_run_results_and_report_agree_on_the_number_that_decides_and_its_direction(
    settings: dict[str, Any], kind: Kind, number: str, best: float, runs: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    names = ("accuracy", "f1_micro", "f1_macro", "matthews_correlation", "rmse", "loss", "log_loss", "furthest")
    for name, value in (("low", 0.1), ("high", 0.9)):
        synthetic.finished(
            runs / name, dict.fromkeys(names, value), settings={**settings, "max_steps": 1 + (name == "low")}
        )
        synthetic.write(
            runs / name / "report" / "data.json", {"problem_type": kind.problem_type, "classes": ["a", "b"]}
        )
        (runs / name / "predictions.parquet").touch()
    chosen = selection(config.from_dict(settings).evaluation, kind)
    assert (chosen.metric, chosen.greater) == (number, best == 0.9)
    row = json.loads(printed(capfd, "--json")[0])[0]
    assert (row["by"], row["mean"]) == (number, best)
    state = run_state.read(runs / "low")
    assert state.score == run_state.Score(number, 0.1)
    read = run_files.read(runs / "low")
    assert (scoring.deciding_number(read), scoring.lower_is_better(read)) == (number, not chosen.greater)
