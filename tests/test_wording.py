"""The deny list of words finds a planted word, in text and in names, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import wording


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("# The run goes on from there.", "goes on from"),
        ("def test_a_run_gone_on_from_a_checkpoint() -> None:", "gone on from"),
        ("Start Anew.", "anew"),
        ("what_is_told = 1", "told"),
        ('"""It lies beside the log."""', "beside"),
    ],
)
def test_a_planted_word_is_found(line: str, word: str) -> None:
    assert [finding[:2] for finding in wording.findings(f"fine\n{line}\n")] == [(2, word)]


@pytest.mark.parametrize(
    "text", ["fine\n# the two stages of\n# which one", "fine\n    two of\n    which", "fine\nof \nwhich"]
)
def test_words_on_two_lines_are_found(text: str) -> None:
    assert [finding[:2] for finding in wording.findings(text)] == [(2, "of which")]


@pytest.mark.parametrize(
    "line", ["a stand-in for apptainer", "stand_ins.add()", "understands", "besides", "a threshold", "the manifold"]
)
def test_other_words_are_allowed(line: str) -> None:
    assert list(wording.findings(line)) == []


def test_code_docs_and_tests_are_searched() -> None:
    names = {str(path.relative_to(wording.ROOT)) for path in wording.tracked(wording.ROOT)}
    assert {"README.md", "docs/data.md", "job/train.py", "tests/conftest.py", "Makefile", ".env.example"} <= names
    assert {Path(name).suffix for name in names} >= {".py", ".md", ".sh", ".yaml", ".toml"}
