"""Class names that look like something else are noted."""

from typing import Any

import pytest

from job.data.labels import recognition
from tests.support.labels import from_csv, from_json


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (
            ["['a', 'b']", "['a']"],
            """label "['a', 'b']" looks like a list and is read as the name of one class; """
            "several labels a row are lists in jsonl or parquet",
        ),
        (
            ["a|b", "c"],
            "label 'a|b' looks like several labels and is read as the name of one class; "
            "several labels a row are lists in jsonl or parquet",
        ),
        (["a, b", "a", "b"], "label 'a, b' looks like several labels and is read as the name of one class; "
         "several labels a row are lists in jsonl or parquet"),
        (["pos", "neg", "N/A"], "label 'N/A' looks like a missing value and is read as the name of a class"),
        (["Pos", "pos", "neg"], "the classes 'Pos' and 'pos' differ only in case or blanks: two classes, as written"),
        (["neg", "pos", "pos "], "the classes 'pos' and 'pos ' differ only in case or blanks: two classes, as written"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [from_csv, from_json])
def test_a_class_that_looks_like_something_else_is_noted(make: Any, values: list[str], note: str) -> None:
    reading = recognition.read_task(make(values))
    assert reading.task.names == tuple(sorted(values))
    assert reading.notes == (note,)


@pytest.mark.parametrize("values", [["hard, but fair", "bad"], ["rock/pop", "jazz"], ["C++", "C"], ["a b", "a"]])
def test_ordinary_names_are_not_noted(values: list[str]) -> None:
    assert recognition.read_task(from_csv(values)).notes == ()
