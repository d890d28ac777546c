"""Runs that train adapters: they resume like others, and publish a plain model with the predictions of the tables.

The adapters have dropout and layer-wise rates, and the best evaluation is not the last, so it is restored in the end.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support import families
from tests.support.interrupted import (
    World,
    checkpoints,
    copied,
    differences,
    digest,
    edit_checkpoint,
    metrics,
    status,
)
from tests.support.launch import PREDICT, alone, environment

WORLD = {"lora_rank": 4, "lora_dropout": 0.1, "layer_lr_decay": 0.9}
ADAPTER = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def reference(world: World) -> Path:
    """A run that was never interrupted."""
    out = world.folder / "reference"
    done = world.run(out).expect(0)
    assert "INFO lora     rank 4 in 13 linear layers and classifier: " in done.stderr
    assert "INFO rates    layers (1 to 2) 0.0243 0.027, head 0.03" in done.stderr, "embeddings are not trained"
    assert "INFO forward  packed" in done.stderr
    results = json.loads((out / "results.json").read_text())
    assert 0 < results["best_step"] < results["train"]["steps"]
    return out


@pytest.fixture(scope="module")
def stopped(world: World) -> Path:
    """A run that was stopped in the middle of an epoch."""
    out = world.folder / "stopped"
    world.run(out, faults="0:step:7:SIGTERM").expect(75)
    return out


def scores(values: dict[str, Any]) -> dict[str, float]:
    return {name: values[name] for name in ("loss", "accuracy", "f1_macro", "f1_weighted", "correct")}


def probabilities(path: Path) -> np.ndarray:
    table = pq.read_table(path)
    names = [name for name in table.column_names if name.startswith("probability_")]
    return np.stack([table[name].to_numpy() for name in names], axis=1)


# ---------------------------------------------------------------------------------------------------------------------
# Stopped and resumed


def test_a_checkpoint_holds_only_trained_weights_and_identifies_its_base(stopped: Path) -> None:
    newest = stopped / "checkpoints" / f"step-{checkpoints(stopped)[-1]:08d}"
    held = load_file(newest / "model.safetensors")
    assert {name for name in held if "lora_" not in name} == {
        "classifier.modules_to_save.default.weight",
        "classifier.modules_to_save.default.bias",
    }
    assert sum(name.endswith(".lora_B.default.weight") for name in held) == 13
    moments = [name for name in load_file(newest / "optimizer.safetensors") if name.endswith(".exp_avg")]
    assert len(moments) == len(held)
    assert len(json.loads((newest / "state.json").read_text())["base"]) == 32


def test_a_run_stopped_in_training_and_in_its_last_evaluation_equals_an_uninterrupted_one(
    world: World, reference: Path, stopped: Path
) -> None:
    out = copied(stopped, "resumed")
    done = world.run(out, faults="0:merged:0:SIGTERM").expect(75)
    assert "after the last step, checkpoint saved; run the same command to resume" in done.stderr
    assert status(out)["state"] == "STOPPED" and not (out / "results.json").exists()
    world.run(out).expect(0)
    assert differences(reference, out) == []
    assert digest(out / ADAPTER) == digest(reference / ADAPTER)


@pytest.mark.long
def test_two_processes_stopped_and_resumed_equal_an_uninterrupted_run(world: World) -> None:
    out, uninterrupted = world.folder / "two", world.folder / "two-reference"
    world.run(uninterrupted, processes=2).expect(0)
    world.run(out, processes=2, faults="1:step:7:SIGTERM").expect(1)
    world.run(out, processes=2).expect(0)
    assert differences(uninterrupted, out) == []
    assert digest(out / ADAPTER) == digest(uninterrupted / ADAPTER)


@pytest.mark.long
def test_adapters_missing_from_a_checkpoint_change_the_result(world: World, reference: Path, stopped: Path) -> None:
    def without_adapters(path: Path) -> None:
        held = load_file(path)
        save_file({name: torch.zeros_like(t) if "lora_B" in name else t for name, t in held.items()}, path)

    out = copied(stopped, "without")
    edit_checkpoint(out / "checkpoints" / "step-00000007", "model.safetensors", without_adapters)
    world.run(out).expect(0)
    assert "metrics.jsonl" in differences(reference, out)


def test_a_changed_base_is_rejected_in_one_line_until_it_is_restored(world: World, stopped: Path) -> None:
    path = world.folder / "model" / "model.safetensors"
    before = path.read_bytes()
    weights = load_file(path)
    weights["embeddings.word_embeddings.weight"][7, 3] += 1e-3
    save_file(weights, path, {"format": "pt"})
    out = copied(stopped, "other-base")
    try:
        done = world.run(out).expect(2)
    finally:
        path.write_bytes(before)
    assert done.errors == [
        "error: the base model changed since step-00000007 was saved: restore it, choose another "
        "--output_dir, or start over with --overwrite_output_dir"
    ]
    assert checkpoints(out) == checkpoints(stopped)


def test_changing_the_adapter_starts_a_new_run(world: World, stopped: Path) -> None:
    changed = {"lora_rank": 3, "lora_alpha": 3, "lora_dropout": 0.2, "layer_lr_decay": 1}
    done = world.run(stopped, **changed).expect(2)
    assert f"contains a run with a different {', '.join(changed)}: " in done.errors[0]


# ---------------------------------------------------------------------------------------------------------------------
# What is published


def test_the_tables_hold_the_merged_model_and_the_records_hold_both(reference: Path) -> None:
    results = json.loads((reference / "results.json").read_text())
    lines = metrics(reference)
    [best] = [line for line in lines if line["split"] == "eval" and line["step"] == results["best_step"]]
    [merged] = [line for line in lines if line["split"] == "merged"]
    assert lines[-1] is merged and merged["step"] == results["best_step"] and merged["epoch"] == best["epoch"]
    assert scores(results["eval"]) == scores(merged)
    assert merged["loss"] == pytest.approx(best["loss"], rel=1e-5)
    assert merged["loss"] != best["loss"], "merging rounds"


def test_the_published_model_is_a_plain_one_and_the_adapter_is_kept_too(reference: Path) -> None:
    names = set(load_file(reference / "model" / "model.safetensors"))
    assert "bert.encoder.layer.0.attention.self.query.weight" in names and "classifier.weight" in names
    assert not any("lora" in name or "base_layer" in name or "modules_to_save" in name for name in names)
    assert sorted(path.name for path in (reference / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    described = json.loads((reference / "adapter" / "adapter_config.json").read_text())
    assert described["modules_to_save"] == ["classifier"] and described["r"] == 4 and described["lora_alpha"] == 8


@pytest.mark.long
@pytest.mark.parametrize("family", ["deberta-v2", "qwen3"])
def test_predict_pipeline_adapter_and_tables_agree(family: str, tmp_path: Path, world: World) -> None:
    """An encoder that lacks its pooler too, and a decoder, whose head looks for the last token."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, pipeline

    families.make(family, tmp_path / "m")
    changes = {"model_name_or_path": tmp_path / "m", "test_file": world.folder / "eval.csv", "num_train_epochs": 1}
    out = tmp_path / "run"
    world.run(out, log=tmp_path / "log", **changes).expect(0)
    predicted = probabilities(out / "predictions.parquet")
    assert np.ptp(predicted[:, 0]) > 1e-4, "rows with the same answer would hide a mistake"
    assert probabilities(out / "test_predictions.parquet").tobytes() == predicted.tobytes()

    words = ["--model_name_or_path", str(out / "model"), "--test_file", str(world.folder / "eval.csv")]
    done = alone(PREDICT, *words, "--output_dir", "again", env=environment(tmp_path / "home"), cwd=tmp_path)
    done.expect(0)
    again = probabilities(tmp_path / "again" / "test_predictions.parquet")
    np.testing.assert_allclose(again, predicted, atol=1e-5, rtol=0)

    texts = [row.split(",")[1] for row in (world.folder / "eval.csv").read_text().splitlines()[1:]]
    classify: Any = pipeline("text-classification", model=str(out / "model"), truncation=True, top_k=None)
    names = [classify.model.config.id2label[number] for number in range(predicted.shape[1])]
    np.testing.assert_allclose(answers(classify, names, texts), predicted, atol=1e-5, rtol=0)

    padding = classify.tokenizer.pad_token_id
    base = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "m", num_labels=len(names), pad_token_id=padding, id2label=dict(enumerate(names))
    )
    classify.model = PeftModel.from_pretrained(base, out / "adapter").eval().get_base_model()
    np.testing.assert_allclose(answers(classify, names, texts), predicted, atol=1e-5, rtol=0)


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.long), 4])
def test_in_mixed_precision_both_tables_and_predict_agree(rank: int, tmp_path: Path, world: World) -> None:
    """The same rows as evaluation and as test data. Without autocast the test set would be computed in fp32."""
    rows, out = world.folder / "eval.csv", tmp_path / "run"
    world.run(out, log=tmp_path / "log", lora_rank=rank, lora_dropout=0, layer_lr_decay=1, mixed_precision="bf16",
              test_file=rows, max_steps=10).expect(0)  # fmt: skip
    words = ["--model_name_or_path", str(out / "model"), "--test_file", str(rows), "--mixed_precision", "bf16",
             "--eval_max_tokens_per_device", "64", "--output_dir", "again"]  # fmt: skip
    alone(PREDICT, *words, env=environment(tmp_path / "home"), cwd=tmp_path).expect(0)
    predicted = probabilities(out / "predictions.parquet").tobytes()
    assert probabilities(out / "test_predictions.parquet").tobytes() == predicted
    assert probabilities(tmp_path / "again" / "test_predictions.parquet").tobytes() == predicted


def answers(classify: Any, names: list[str], texts: list[str]) -> np.ndarray:
    """Probabilities by the pipeline, a column for each of the names."""
    rows = [{answer["label"]: answer["score"] for answer in row} for row in classify(texts)]
    return np.array([[row[name] for name in names] for row in rows])
