"""Tokenizers that give other tokens have other digests; using, copying or loading a tokenizer again changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from job.data import tokenizer_digest
from tests.support.tiny import tiny_tokenizer

TEXT = "good @bob [SEP] bad film"


def load(folder: Path, **options: Any) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, **options)


@pytest.fixture(scope="module")
def fast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fast")
    tiny_tokenizer(folder, ["good", "bad", "film"])
    return folder


@pytest.fixture
def in_python(tmp_path: Path) -> Path:
    """A tokenizer without a backend, as BERTweet's."""
    folder = tmp_path / "in_python"
    folder.mkdir()
    (folder / "vocab.txt").write_text("good 5\nba@@ 5\nb@@ 5\nad 5\nd 5\n")
    (folder / "bpe.codes").write_text("b a 5\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertweetTokenizer", "normalization": False})
    )
    return folder


@pytest.mark.parametrize("option", [{"truncation_side": "left"}, {"split_special_tokens": True}])
def test_an_option_that_changes_the_tokens_changes_the_digest(option: dict[str, Any], fast: Path) -> None:
    usual, other = load(fast), load(fast, **option)
    tokens = [tokenizer(TEXT, truncation=True, max_length=8)["input_ids"] for tokenizer in (usual, other)]
    assert tokens[0] != tokens[1]
    assert tokenizer_digest.of(usual) != tokenizer_digest.of(other)


def test_an_option_of_a_tokenizer_in_python_changes_the_digest(in_python: Path) -> None:
    usual, other = load(in_python), load(in_python, normalization=True)
    assert usual(TEXT)["input_ids"] != other(TEXT)["input_ids"]
    assert tokenizer_digest.of(usual) != tokenizer_digest.of(other)


def test_other_files_of_a_tokenizer_in_python_change_the_digest(in_python: Path) -> None:
    before = load(in_python)
    (in_python / "bpe.codes").write_text("a d</w> 5\n")
    after = load(in_python)
    assert before.get_vocab() == after.get_vocab()
    assert before("bad")["input_ids"] != after("bad")["input_ids"]
    assert tokenizer_digest.of(before) != tokenizer_digest.of(after)


@pytest.mark.parametrize("kind", ["fast", "in_python"])
def test_a_used_tokenizer_has_the_digest_of_one_just_loaded(kind: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(kind)
    used = load(folder)
    used([TEXT, "food"], padding="max_length", truncation=True, max_length=9)
    assert tokenizer_digest.of(used) == tokenizer_digest.of(load(folder))


def test_another_version_of_the_library_changes_the_digest(fast: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tokenizer_digest.of(load(fast))
    monkeypatch.setattr("transformers.__version__", "0.0")
    assert tokenizer_digest.of(load(fast)) != before
