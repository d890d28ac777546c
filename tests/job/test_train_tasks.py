"""Regression, several labels a row, an evaluation set cut off, and a test set: whole runs in real processes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.stats import pearsonr
from sklearn.metrics import f1_score

from tests.support.launch import TRAIN, Finished, alone, environment, torchrun
from tests.support.opinions import opinion, tags, untrained


@pytest.fixture(scope="module")
def opinions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    untrained(folder / "model")
    rng = random.Random(0)
    stars, tagged, unlabelled = ["text,score"], list[Any](), list[Any]()
    for number in range(200):
        good, text = opinion(rng, 9)
        stars.append(f"{text},{good + 0.25}")
        tagged.append({"text": text, "labels": tags(good)})
        unlabelled.append({"text": text, "id": number})
    (folder / "stars.csv").write_text("\n".join(stars), encoding="utf-8")
    for name, rows in {"tags": tagged, "unlabelled": unlabelled[:37]}.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def train(
    opinions: Path, out: str, processes: int = 1, more: Sequence[str] = (), code: int = 0, **changes: object
) -> Finished:
    values = {"model_name_or_path": "model", "learning_rate": 1e-2, "num_train_epochs": 4, "output_dir": out} | changes
    words = [*(word for name, value in values.items() for word in (f"--{name}", str(value))), *more]
    env = environment(opinions / "home")
    if processes == 1:
        return alone(TRAIN, *words, env=env, cwd=opinions).expect(code)
    return torchrun(processes, TRAIN, *words, env=env, cwd=opinions).expect(code)


def results(opinions: Path, out: str) -> dict[str, Any]:
    return json.loads((opinions / out / "results.json").read_text())


def test_regression_on_two_processes_with_a_limited_evaluation_set(opinions: Path) -> None:
    done = train(opinions, "regression", processes=2, train_file="stars.csv", label_column_name="score")
    assert "a number (regression); no validation data given: a tenth of the training rows is cut off" in done.stderr
    table = pq.read_table(opinions / "regression" / "predictions.parquet").to_pandas()
    actual = results(opinions, "regression")
    assert len(table) == actual["eval"]["examples"] == 20
    assert actual["data"]["train"]["rows"] == 180
    assert actual["eval"]["pearsonr"] == pytest.approx(pearsonr(table["label"], table["prediction"]).statistic)
    assert actual["eval"]["rmse"] == pytest.approx(np.sqrt(((table["label"] - table["prediction"]) ** 2).mean()))
    assert actual["eval"]["pearsonr"] > 0.8, "the numbers can be learnt, and were not"


def test_multi_label_with_an_unlabelled_test_set(opinions: Path) -> None:
    train(opinions, "tags", train_file="tags.jsonl", validation_file="tags.jsonl", test_file="unlabelled.jsonl")
    table = pq.read_table(opinions / "tags" / "predictions.parquet").to_pandas()
    label, prediction = ([["blame" in row, "praise" in row] for row in table[name]] for name in ("label", "prediction"))
    actual = results(opinions, "tags")
    assert actual["eval"]["f1_micro"] == f1_score(label, prediction, average="micro")
    assert actual["eval"]["f1_macro"] > 0.8
    tested = pq.read_table(opinions / "tags" / "test_predictions.parquet")
    assert tested["index"].to_pylist() == list(range(37))
    assert tested["label"].null_count == 37
    assert actual["test"] == {"examples": 37}


def test_the_test_set_is_predicted_by_the_best_weights_on_every_process(opinions: Path) -> None:
    train(opinions, "best", processes=2, train_file="stars.csv", label_column_name="score", validation_file="stars.csv",
          test_file="stars.csv", eval_strategy="steps", eval_steps=3, learning_rate=5e-2)  # fmt: skip
    lines = [json.loads(line) for line in (opinions / "best" / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line for line in lines if line["split"] == "eval"]
    assert not evaluated[-1]["best"], "the last weights must not be the best ones for this test to mean something"
    predicted, tested = (
        pq.read_table(opinions / "best" / f"{name}.parquet").to_pandas() for name in ("predictions", "test_predictions")
    )
    np.testing.assert_allclose(tested["prediction"], predicted["prediction"], rtol=1e-6)


def test_padding_to_max_length_changes_shapes_but_not_the_result(opinions: Path) -> None:
    values: dict[str, Any] = {"train_file": "stars.csv", "label_column_name": "score", "validation_file": "stars.csv",
              "max_seq_length": 32, "max_steps": 6, "logging_steps": 1}  # fmt: skip
    train(opinions, "short", **values)
    train(opinions, "padded", more=["--pad_to_max_length"], **values)
    short, full = (
        [json.loads(line) for line in (opinions / out / "metrics.jsonl").read_text().splitlines()]
        for out in ("short", "padded")
    )
    assert [line["loss"] for line in short] == pytest.approx([line["loss"] for line in full], rel=1e-4)
    assert full[0]["padding_fraction"] > short[0]["padding_fraction"] + 0.2


OWN_METRIC = """
import datasets
import evaluate

class Own(evaluate.Metric):
    def _info(self):
        kind = datasets.Value("float64")
        features = datasets.Features({"predictions": kind, "references": kind})
        return evaluate.MetricInfo(description="a", citation="b", inputs_description="c", features=features)

    def _compute(self, predictions, references):
        return {"furthest": max(abs(p - r) for p, r in zip(predictions, references))}
"""


def test_a_key_that_a_custom_metric_does_not_return_is_rejected_before_training(opinions: Path) -> None:
    (opinions / "own").mkdir()
    (opinions / "own" / "own.py").write_text(OWN_METRIC)
    flags: dict[str, Any] = {"train_file": "stars.csv", "label_column_name": "score", "metrics": "./own",
             "num_train_epochs": 1, "report_to": "none"}  # fmt: skip
    done = train(opinions, "rejected", 2, code=1, metric_for_best_model="nearest", **flags)
    assert done.errors == ["error: --metric_for_best_model nearest is not computed for this task (a number "
                           "(regression)): choose one of loss, furthest"]  # fmt: skip
    assert not (opinions / "rejected" / "metrics.jsonl").read_text(), "no step was made"
    train(opinions, "own-run", more=["--no_greater_is_better"], metric_for_best_model="eval_furthest", **flags)
    table = pq.read_table(opinions / "own-run" / "predictions.parquet").to_pandas()
    furthest = (table["label"] - table["prediction"]).abs().max()
    assert results(opinions, "own-run")["eval"]["furthest"] == pytest.approx(furthest)
    folder = opinions / "own-run"
    assert not [path for path in folder.rglob("*") if "tfevents" in path.name], "--report_to none"
