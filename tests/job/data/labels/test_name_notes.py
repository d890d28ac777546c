"""Suspicious class names are noted."""

from typing import Any

import pytest

from job.data.labels import recognition
from tests.support.labels import from_csv, from_json


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (
            ["['a', 'b']", "['a']"],
            """label "['a', 'b']" looks like a list but is read as one class; """
            "for several labels per row, use lists in jsonl or parquet",
        ),
        (
            ["a|b", "c"],
            "label 'a|b' looks like several labels but is read as one class; "
            "for several labels per row, use lists in jsonl or parquet",
        ),
        (["a, b", "a", "b"], "label 'a, b' looks like several labels but is read as one class; "
         "for several labels per row, use lists in jsonl or parquet"),
        (["pos", "neg", "N/A"], "label 'N/A' looks like a missing value but is read as a class"),
        (["Pos", "pos", "neg"], "the classes 'Pos' and 'pos' differ only in case or blanks; they are two classes"),
        (["neg", "pos", "pos "], "the classes 'pos' and 'pos ' differ only in case or blanks; they are two classes"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("make", [from_csv, from_json])
def test_a_suspicious_class_name_is_noted(make: Any, values: list[str], note: str) -> None:
    reading = recognition.read_task(make(values))
    assert reading.task.names == tuple(sorted(values))
    assert reading.notes == (note,)


@pytest.mark.parametrize("values", [["hard, but fair", "bad"], ["rock/pop", "jazz"], ["C++", "C"], ["a b", "a"]])
def test_ordinary_names_are_not_noted(values: list[str]) -> None:
    assert recognition.read_task(from_csv(values)).notes == ()
