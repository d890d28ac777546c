"""Prediction alone, in real processes: what a run wrote for its test set, of any number of processes, in order."""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.support.launch import PREDICT, TRAIN, Finished, alone, cold, environment, run, torchrun
from tests.support.opinions import opinion, tags, untrained

TASKS = {"label": (1, 3), "score": (2,), "tags": (2,)}
"""The column of each kind of task, and the numbers of processes to predict it on."""
WORKER = Path(__file__).parent / "workers" / "interrupted.py"
EMPTY = 5
"""Interval of the rows to predict that have no text, starting with the first."""


def labelled(good: int) -> dict[str, object]:
    return {"label": ["bad", "fair", "good"][good // 2], "score": good + 0.25, "tags": tags(good)}


def jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture(scope="module")
def opinions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model, train.jsonl, new.jsonl and, the same without labels and backwards, bare.jsonl."""
    folder = tmp_path_factory.mktemp("predict")
    untrained(folder / "model")
    rng = random.Random(0)
    rows = [{"text": text, **labelled(good)} for good, text in (opinion(rng, 20) for _ in range(97))]
    jsonl(folder / "train.jsonl", rows[:60])
    new = [row | ({} if i % EMPTY else {"text": ""}) for i, row in enumerate(rows[60:])]
    jsonl(folder / "new.jsonl", new)
    jsonl(folder / "bare.jsonl", [{"text": row["text"], "id": 7} for row in reversed(new)])
    return folder


def words(flags: Mapping[str, object]) -> list[str]:
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def trained(opinions: Path) -> dict[str, Path]:
    """The folders of runs, one a kind of task, that predicted new.jsonl in the end."""
    for task in TASKS:
        flags = {"model_name_or_path": "model", "train_file": "train.jsonl", "validation_file": "train.jsonl",
                 "test_file": "new.jsonl", "label_column_name": task, "learning_rate": 2e-2, "max_steps": 30,
                 "eval_strategy": "no", "output_dir": task}  # fmt: skip
        alone(TRAIN, *words(flags), env=environment(opinions / "home"), cwd=opinions).expect(0)
    return {task: opinions / task for task in TASKS}


@pytest.fixture(scope="module")
def classifier(trained: dict[str, Path]) -> Path:
    return trained["label"] / "model"


def predict(opinions: Path, model: Path, out: str, processes: int = 1, **changes: object) -> Finished:
    flags = {"model_name_or_path": model, "test_file": "new.jsonl", "output_dir": out} | changes
    env = environment(opinions / "home")
    if processes == 1:
        return alone(PREDICT, *words(flags), env=env, cwd=opinions)
    return torchrun(processes, PREDICT, *words(flags), env=env, cwd=opinions)


def table(folder: Path) -> pa.Table:
    return pq.read_table(folder / "test_predictions.parquet")


def results(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "results.json").read_text())


@pytest.mark.parametrize("task", TASKS)
def test_a_run_and_its_model_give_the_same_predictions_on_any_number_of_processes(
    opinions: Path, trained: dict[str, Path], task: str
) -> None:
    expected = (trained[task] / "test_predictions.parquet").read_bytes()
    assert table(trained[task])["index"].to_pylist() == [*range(37)]
    answers = []
    for processes in TASKS[task]:
        out = opinions / f"{task}-{processes}"
        file = opinions / f"{task}-{processes}.csv"
        arguments = {"label_column_name": task, "output_file": file, **({} if task == "score" else {"top_k": 2})}
        predict(opinions, trained[task] / "model", out.name, processes, **arguments).expect(0)
        answers.append(file.read_bytes())
        assert json.loads((out / "manifest.json").read_text())["world_size"] == processes
        assert (out / "test_predictions.parquet").read_bytes() == expected
        assert results(out)["test"] == results(trained[task])["test"]
        assert "eval" not in results(out)
        assert {path.name for path in out.iterdir()} == {
            ".lock", "config.yaml", "manifest.json", "report", "report.html", "results.json", "status.json",
            "test_predictions.parquet",
        }  # fmt: skip
    assert len(set(answers)) == 1
    _check_output_file(opinions / f"{task}-{TASKS[task][0]}.csv", opinions / "new.jsonl", table(trained[task]))


def _check_output_file(written: Path, new: Path, predictions: pa.Table) -> None:
    """Fail unless there is one output row per input row, in order, with the prediction of the table."""
    with open(written, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    read = [json.loads(line) for line in new.read_text().splitlines()]
    assert [row["text"] for row in rows] == [row["text"] for row in read]
    expected = predictions["prediction"].to_pylist()
    if isinstance(expected[0], float):
        assert [float(row["prediction"]) for row in rows] == expected
        assert "score_1" not in rows[0], "a number has no score"
    elif isinstance(expected[0], list):
        assert [json.loads(row["prediction"]) for row in rows] == expected
    else:
        assert [row["prediction"] for row in rows] == [row["top_1"] for row in rows] == expected
        assert all(float(row["top_1_score"]) >= float(row["top_2_score"]) for row in rows)


@pytest.fixture(scope="module")
def backward(opinions: Path, classifier: Path) -> Path:
    """The folder of a prediction of bare.jsonl."""
    done = predict(opinions, classifier, "backward", test_file="bare.jsonl").expect(0)
    assert "text: text, no label, 3 classes" in done.stderr
    assert "predicted 37 examples" in done.stderr
    return opinions / "backward"


def test_rows_without_label_or_text_are_predicted_in_order(trained: dict[str, Path], backward: Path) -> None:
    one, other = table(trained["label"]), table(backward)
    assert other["index"].to_pylist() == [*range(37)]
    assert other["label"].null_count == 37
    assert other["prediction"].to_pylist() == one["prediction"].to_pylist()[::-1]
    for name in ("bad", "fair", "good"):
        column = f"probability_{name}"
        np.testing.assert_allclose(other[column].to_numpy()[::-1], one[column].to_numpy(), rtol=1e-5)
        assert len({round(value, 5) for value in one[column].to_pylist()[::EMPTY]}) == 1, "of no text: one answer"
    assert len(set(one["prediction"].to_pylist())) > 1, "an order of equal answers cannot be seen"
    assert results(backward)["test"] == {"examples": 37}


def test_predictions_are_written_for_a_finished_run_even_if_it_was_killed_before_it_said_so(
    opinions: Path, classifier: Path, backward: Path
) -> None:
    status = json.loads((backward / "status.json").read_text())
    (backward / "status.json").write_text(json.dumps({**status, "state": "RUNNING"}))
    done = predict(opinions, classifier, "backward", test_file="bare.jsonl", output_file="backward.jsonl").expect(0)
    assert "has already finished" in done.stderr
    assert json.loads((backward / "status.json").read_text())["state"] == "DONE"
    rows = [json.loads(line) for line in (opinions / "backward.jsonl").read_text().splitlines()]
    assert [row["prediction"] for row in rows] == table(backward)["prediction"].to_pylist()
    assert [list(row) for row in rows] == [["text", "id", "prediction", "score"]] * 37


def test_predictions_of_a_finished_run_are_not_written_next_to_other_rows(
    opinions: Path, classifier: Path, backward: Path
) -> None:
    given = opinions / "bare.jsonl"
    rows = given.read_text()
    given.write_text("".join(reversed(rows.splitlines(keepends=True))))
    try:
        done = predict(opinions, classifier, "backward", test_file="bare.jsonl", output_file="forward.jsonl").expect(2)
    finally:
        given.write_text(rows)
    assert "the data changed since this run finished: choose another --output_dir, or start over" in done.errors[0]
    assert not (opinions / "forward.jsonl").exists()


def test_a_subset_of_the_rows_keeps_their_numbers(opinions: Path, classifier: Path, backward: Path) -> None:
    predict(opinions, classifier, "part", test_file="bare.jsonl", max_predict_samples=9).expect(0)
    part, whole = table(opinions / "part"), table(backward)
    assert part["prediction"].to_pylist() == whole.take(part["index"])["prediction"].to_pylist()
    assert len(part) == len(set(part["index"].to_pylist())) == 9


def accelerate_launch(*arguments: str, env: Mapping[str, str], cwd: Path) -> Finished:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", str(PREDICT), *arguments]
    return run(command, env, cwd, 300)


@pytest.mark.parametrize("start", [partial(alone, PREDICT), pytest.param(accelerate_launch, marks=pytest.mark.long)],
                         ids=["python", "accelerate launch"])  # fmt: skip
def test_predicting_does_not_change_latest(start: Callable[..., Finished], opinions: Path, tmp_path: Path) -> None:
    """So that the same command with runs/latest/model means the same the second time."""
    env = environment(opinions / "home")
    flags = {"model_name_or_path": opinions / "model", "train_file": opinions / "train.jsonl"}
    alone(TRAIN, *words(flags), "--max_steps", "1", env=env, cwd=tmp_path).expect(0)
    latest = (tmp_path / "runs" / "latest").resolve()
    arguments = ["--model_name_or_path", "runs/latest/model", "--test_file", str(opinions / "new.jsonl")]
    start(*arguments, env=env, cwd=tmp_path).expect(0)
    alone(TRAIN, "predict", *arguments, env=env, cwd=tmp_path).expect(0)
    assert (tmp_path / "runs" / "latest").resolve() == latest
    recorded = yaml.safe_load(next((tmp_path / "runs").glob("predict-*/config.yaml")).read_text())
    assert recorded["model_name_or_path"] == str(latest / "model")
    made = sorted((tmp_path / "runs").glob("predict-*/test_predictions.parquet"))
    assert len(made) == 2
    assert len({path.read_bytes() for path in made}) == 1


def test_training_may_start_from_latest_and_then_replaces_it(opinions: Path, tmp_path: Path) -> None:
    env = environment(opinions / "home")
    arguments = ["--train_file", str(opinions / "train.jsonl"), "--max_steps", "1", "--model_name_or_path"]
    alone(TRAIN, *arguments, str(opinions / "model"), env=env, cwd=tmp_path).expect(0)
    first = (tmp_path / "runs" / "latest").resolve()
    alone(TRAIN, *arguments, "runs/latest/model", env=env, cwd=tmp_path).expect(0)
    assert (tmp_path / "runs" / "latest").resolve() != first
    assert (tmp_path / "runs" / "latest" / "model" / "model.safetensors").is_file()


def test_a_second_prediction_does_nothing_and_another_file_is_rejected(
    opinions: Path, classifier: Path, backward: Path
) -> None:
    again = predict(opinions, classifier, backward.name, test_file="bare.jsonl").expect(0)
    assert "has already finished" in again.stderr
    other = predict(opinions, classifier, backward.name).expect(2)
    assert "contains a run with a different test_file: choose" in other.errors[0]


def test_an_evaluation_of_the_same_model_is_another_run(opinions: Path, classifier: Path, backward: Path) -> None:
    flags = {"model_name_or_path": classifier, "validation_file": "train.jsonl", "test_file": "bare.jsonl",
             "output_dir": backward}  # fmt: skip
    done = alone(TRAIN, "--no_do_train", *words(flags), env=environment(opinions / "home"), cwd=opinions).expect(2)
    assert "contains a run with a different validation_file, do_eval" in done.errors[0]


def test_a_stopped_prediction_leaves_no_partial_file_and_the_same_command_finishes_it(
    opinions: Path, classifier: Path
) -> None:
    flags = {"model_name_or_path": classifier, "test_file": "bare.jsonl", "output_dir": "stopped",
             "eval_max_tokens_per_device": 32}  # fmt: skip
    env = environment(opinions / "home", FAULTS="0:batch:2:SIGTERM")
    done = alone(WORKER, "predict", *words(flags), env=env, cwd=opinions).expect(75)
    assert "stopped by SIGTERM during the evaluation; run the same command to start it again" in done.stderr
    assert not list((opinions / "stopped").glob("*predictions*"))
    alone(PREDICT, *words(flags), env=environment(opinions / "home"), cwd=opinions).expect(0)
    assert len(table(opinions / "stopped")) == 37


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ("--test_file bare.jsonl", "the model has no class names: give a fine-tuned model"),
        ("", "nothing to predict: give --test_file, or --dataset_name and --test_split_name"),
        ("--train_file train.jsonl", "nothing to predict: give --test_file, or --dataset_name"),
        ("--test_file nowhere.csv", "file not found: nowhere.csv"),
        ("--test_file bare.jsonl --do_train", "--no_do_eval needs --no_do_train: "),
        ("mrpc --test_file bare.jsonl", "unrecognized options: mrpc"),
    ],
)  # fmt: skip
def test_invalid_requests_are_rejected_in_one_line(opinions: Path, more: str, message: str) -> None:
    env = environment(opinions / "home")
    arguments = [*more.split(), "--model_name_or_path", "model", "--output_dir", "rejected"]
    done = alone(PREDICT, *arguments, env=env, cwd=opinions).expect(2)
    assert len(done.errors) == 1
    assert done.errors[0].startswith(f"error: {message}")
    assert not (opinions / "rejected" / "results.json").exists()


def test_help_names_this_script(opinions: Path) -> None:
    done = cold(PREDICT, "--help", env=environment(opinions / "home"), cwd=opinions).expect(0)
    assert "usage: job/predict.py" in done.stdout
    assert "--max_predict_samples" in done.stdout
