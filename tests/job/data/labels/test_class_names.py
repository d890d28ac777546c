"""The names of classes and their order depend on the labels, not on the order of the rows."""

from typing import Any

import pytest
from datasets import ClassLabel

from tests.support.labels import classes, encode, from_json, source, task_of


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([10, 2, -1], ("-1", "2", "10")),
        (["10", "2", "-1"], ("-1", "2", "10")),
        (["10", 2], ("2", "10")),
        (["b", "a", "B"], ("B", "a", "b")),
        (["10", "2", "a"], ("10", "2", "a")),
        (["05", "10", "5"], ("05", "10", "5")),  # as numbers, two of them would be one class
        ([True, False], ("False", "True")),
        (["ä", "z", "a"], ("a", "z", "ä")),
        (["²", "3"], ("3", "²")),
    ],
)
def test_classes_are_sorted_by_number_or_by_text(values: list[Any], names: tuple[str, ...]) -> None:
    assert task_of(from_json(values)).names == task_of(from_json(values[::-1])).names == names


@pytest.mark.parametrize(
    ("values", "names"), [([10, 2], ("2", "10")), (["10", "2"], ("2", "10")), ([True, False], ("False", "True"))]
)
def test_a_typed_table_gives_the_same_order_as_a_file(values: list[Any], names: tuple[str, ...]) -> None:
    assert task_of(source(values)).names == names == task_of(from_json(values)).names


def test_declared_classes_keep_their_order_even_without_rows() -> None:
    train = source([0, 2, 0], ClassLabel(names=["z", "b", "a"]))
    assert task_of(train).names == ("z", "b", "a")
    assert encode(train, classes("z", "b", "a")).tolist() == [0, 2, 0]
