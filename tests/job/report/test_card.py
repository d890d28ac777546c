"""The model card, read back by the hub's own library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from job import config
from job.config.tasks import MULTI_LABEL, REGRESSION, SCORE, SINGLE_LABEL, Task
from job.data.dataset import Data
from job.report import card
from tests.support.hub_uploads import card_errors

RESULTS: dict[str, Any] = {
    "best_step": 7,
    "eval": {"loss": 0.25, "accuracy": 0.75, "f1_macro": 0.5, "correct": 3, "examples": 4, "per_class": {}},
    "test": {"loss": 0.5, "accuracy": 0.5, "f1_macro": None, "examples": 2},
    "train": {"steps": 9, "examples": 288},
}
COLORS = Task(SINGLE_LABEL, ("red", "green"))


def data(task: Task = COLORS, cut: bool = False) -> Data:
    return Data(None, None, None, task, ("text",), "label", cut, (), "", {})


def made(task: Task = COLORS, cut: bool = False, results: dict[str, Any] | None = None, **settings: Any) -> ModelCard:
    files = {"train_file": "/home/me/secret/train.csv", "validation_file": "/home/me/secret/eval.csv"}
    asked = config.from_dict({"model_name_or_path": "acme/tiny", **files, **settings})
    return ModelCard(card.model_card(asked, results or RESULTS, data(task, cut)))


def test_the_metadata_says_what_the_model_is_made_of_and_how_good_it_is() -> None:
    header = made(test_file="/home/me/secret/test.csv").data.to_dict()
    index = header.pop("model-index")
    assert header == {
        "base_model": "acme/tiny",
        "library_name": "transformers",
        "metrics": ["accuracy", "f1"],
        "pipeline_tag": "text-classification",
        "tags": ["muster"],
    }
    name, found = model_index_to_eval_results(index)
    assert name == "tiny fine-tuned on train.csv"
    numbers = {(r.dataset_split, r.dataset_name, r.metric_name): (r.metric_type, r.metric_value) for r in found}
    assert numbers == {
        ("validation", "eval.csv", "loss"): ("loss", 0.25),
        ("validation", "eval.csv", "accuracy"): ("accuracy", 0.75),
        ("validation", "eval.csv", "f1_macro"): ("f1", 0.5),
        ("test", "test.csv", "loss"): ("loss", 0.5),
        ("test", "test.csv", "accuracy"): ("accuracy", 0.5),
    }
    assert next(r for r in found if r.metric_name == "f1_macro").metric_args == {"average": "macro"}
    assert eval_results_to_model_index(name, found) == index


@pytest.mark.parametrize(
    ("task", "scores", "metrics"),
    [
        (Task(MULTI_LABEL, ("a", "b")), {"f1_micro": 0.5}, ["accuracy", "f1"]),
        (Task(REGRESSION, (SCORE,)), {"spearmanr": 0.5}, ["rmse", "pearsonr", "spearmanr"]),
    ],
    ids=["several labels", "regression"],
)
def test_every_kind_of_task_has_a_card(task: Task, scores: dict[str, float], metrics: list[str]) -> None:
    found = made(task, results={**RESULTS, "eval": {**scores, "examples": 4}, "test": {}})
    assert found.data.get("metrics") == metrics
    assert [(r.metric_type, r.metric_value) for r in found.data.get("eval_results") or []] == [
        (metrics[-1], next(iter(scores.values())))
    ]


def test_adapters_are_mentioned_where_they_were_trained() -> None:
    assert "| low-rank adapters | rank 16, alpha 32, merged into the weights |" in made(lora_rank=16).text
    assert "alpha 8," in made(lora_rank=16, lora_alpha=8).text
    assert "adapters" not in made().text


def test_no_local_path_is_written(tmp_path: Path) -> None:
    run, metric, corpus = tmp_path / "run-1" / "model", tmp_path / "own_metric", tmp_path / "corpus"
    for folder in (run, metric, corpus):
        folder.mkdir(parents=True)
    (run.parent / "results.json").write_text("{}")
    home = tmp_path / "alice" / "model"
    home.mkdir(parents=True)
    assert "alice" not in str(made(model_name_or_path=str(home)))
    local: dict[str, Any] = {"train_file": None, "validation_file": None, "dataset_name": str(corpus)}
    found = made(model_name_or_path=str(run), metrics=[str(metric)], **local)
    assert str(tmp_path) not in str(found)
    assert "/home/me" not in str(made(test_file="/home/me/secret/test.csv"))
    assert "/home/me" not in str(made(train_file="/home/me/secret/*.csv", validation_file=None, cut=True))
    assert (found.data.get("base_model"), found.data.get("datasets")) == (None, None)
    assert (found.data.get("metrics"), found.data.get("model_name")) == (["own_metric"], "run-1 fine-tuned on corpus")


def test_license_base_and_language_are_those_that_local_cards_name(tmp_path: Path) -> None:
    base, corpus = tmp_path / "base", tmp_path / "corpus"
    for folder, header in {base: "license: mit\nbase_model: acme/large", corpus: "language: [de, fr]"}.items():
        folder.mkdir()
        (folder / "README.md").write_text(f"---\n{header}\n---\n")
    local: dict[str, Any] = {"train_file": None, "validation_file": None, "dataset_name": str(corpus)}
    found = made(model_name_or_path=str(base), **local).data
    assert (found.get("license"), found.get("base_model"), found.get("language")) == ("mit", "acme/large", ["de", "fr"])
    for header in ("license: other", "license: [a]\nbase_model: /home/me", "license: {", "- a", ""):
        (base / "README.md").write_text(f"---\n{header}\n---\n")
        found = made(model_name_or_path=str(base)).data
        assert (found.get("license"), found.get("base_model")) == (None, None), header


@pytest.mark.parametrize(
    ("named", "shown"),
    [("en", ["en"]), ("no", ["no"]), ("[en, no, zh-Hant-TW, 7]", ["en", "no"]), ("English", None), ("{a: b}", None)],
)
def test_a_language_that_the_hub_would_reject_is_left_out(tmp_path: Path, named: str, shown: list[str] | None) -> None:
    (tmp_path / "README.md").write_text(f"---\nlanguage: {named}\n---\n")
    found = made(train_file=None, validation_file=None, dataset_name=str(tmp_path))
    assert found.data.get("language") == shown
    assert card_errors(found.content) == []


@pytest.mark.parametrize(
    ("named", "shown"), [("Apache-2.0", "apache-2.0"), ("Apache 2.0", None), ("Other", None), ("'© me'", None)]
)
def test_a_license_that_the_hub_would_reject_is_left_out(tmp_path: Path, named: str, shown: str | None) -> None:
    (tmp_path / "README.md").write_text(f"---\nlicense: {named}\n---\n", encoding="utf-8")
    assert made(model_name_or_path=str(tmp_path)).data.get("license") == shown


def test_the_default_model_has_the_license_it_was_published_under() -> None:
    found = made(model_name_or_path=config.Model().model_name_or_path, train_file=None, dataset_name="docstrings").data
    assert (found.get("base_model"), found.get("license")) == ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0")
    assert found.get("datasets") is None, "docstrings is built in, not a data set of the hub"


def test_class_names_stay_text_regardless_of_content() -> None:
    odd = ("a`b", "---\nlicense: mit", "<script>", "x" * 500, *(f"class {i}" for i in range(40)))
    found = made(Task(SINGLE_LABEL, odd))
    assert found.data.get("license") is None
    assert "`a'b`, `--- license: mit`, `<script>`, `" + "x" * 60 + "`, `class 0`" in found.text
    assert "`class 25`, ..." in found.text
