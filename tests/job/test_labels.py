"""Class numbers depend on the labels, not on the order of the rows; what is no class is refused by name."""

import json
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given
from hypothesis import strategies as st

from job import labels
from job.columns import Columns
from job.errors import Refused
from job.sources import Source


def source(values: list[Any], feature: Any = None, origin: str = "train.csv", json_labels: bool = False) -> Source:
    features = None if feature is None else Features({"label": feature})
    table = Dataset.from_dict({"label": values}, features=features)
    return Source(table, Columns(("text",), "label"), origin, "fingerprint", json_labels)


def from_file(values: list[Any], origin: str = "train.csv") -> Source:
    """As csv and jsonl files are read: each label as JSON text."""
    return source([json.dumps(value) for value in values], Value("string"), origin, json_labels=True)


def refusal(values: Source, names: tuple[str, ...] | None = None) -> str:
    with pytest.raises(Refused) as caught:
        _ = labels.class_names(values) if names is None else labels.encode(values, names)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([10, 2, -1], ("-1", "2", "10")),
        (["10", "2", "-1"], ("-1", "2", "10")),
        (["10", 2], ("2", "10")),
        (["b", "a", "B"], ("B", "a", "b")),
        (["10", "2", "a"], ("10", "2", "a")),
        (["05", "10", "5"], ("05", "10", "5")),  # as numbers, two of them would be one class
        (["1.0", "10.0", "2.0"], ("1.0", "10.0", "2.0")),
        ([True, False], ("False", "True")),
        (["ä", "z", "a"], ("a", "z", "ä")),
        (["²", "3"], ("3", "²")),
    ],
)
def test_classes_are_ordered_by_number_else_by_text(values: list[Any], names: tuple[str, ...]) -> None:
    assert labels.class_names(from_file(values)) == names
    assert labels.class_names(from_file(values[::-1])) == names


@pytest.mark.parametrize(
    ("values", "names"), [([10, 2], ("2", "10")), (["10", "2"], ("2", "10")), ([True, False], ("False", "True"))]
)
def test_a_typed_table_gives_the_same_order_as_a_file(values: list[Any], names: tuple[str, ...]) -> None:
    assert labels.class_names(source(values)) == names == labels.class_names(from_file(values))


def test_declared_classes_keep_their_order_even_where_one_has_no_row() -> None:
    train = source([0, 2, 0], ClassLabel(names=["z", "b", "a"]))
    assert labels.class_names(train) == ("z", "b", "a")
    assert labels.encode(train, ("z", "b", "a")).tolist() == [0, 2, 0]


def test_a_model_with_the_same_names_keeps_its_order() -> None:
    train = source([0, 1], ClassLabel(names=["neg", "pos"]))
    assert labels.class_names(train, of_model=("pos", "neg")) == ("pos", "neg")
    assert labels.encode(train, ("pos", "neg")).tolist() == [1, 0]


@pytest.mark.parametrize("of_model", [("neg",), ("neg", "pos", "neutral"), ("Neg", "Pos"), ()])
def test_a_model_with_other_names_does_not_matter(of_model: tuple[str, ...]) -> None:
    assert labels.class_names(from_file(["pos", "neg"]), of_model) == ("neg", "pos")


@given(st.lists(st.integers(-20, 20) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2))
def test_every_row_gets_the_number_of_its_own_name(values: list[Any]) -> None:
    train = from_file(values)
    if len({str(value) for value in values}) < 2:
        return
    names = labels.class_names(train)
    encoded = labels.encode(train, names)
    assert encoded.dtype == "int64"
    assert [names[number] for number in encoded] == [str(value) for value in values]
    assert labels.class_names(from_file(values[::-1])) == names


def test_rows_of_several_chunks_are_numbered_alike() -> None:
    from datasets import concatenate_datasets

    parts = [source(["b", "a"]).table, source(["c", "a"]).table]
    train = Source(concatenate_datasets(parts), Columns(("text",), "label"), "train.csv", "fingerprint")
    names = labels.class_names(train)
    assert [names[i] for i in labels.encode(train, names)] == ["b", "a", "c", "a"]


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (
            from_file(["a", "d"], "eval.csv"),
            "eval.csv: label 'd' is not among the 3 classes (a, b, c): "
            "take these rows out, or train on data that has them",
        ),
        (
            source([0, 1], ClassLabel(names=["a", "x"]), "hub (test)"),
            "hub (test): label 'x' is not among the 3 classes (a, b, c): "
            "take these rows out, or train on data that has them",
        ),
        (from_file(["a", ""], "eval.csv"), "eval.csv: column label has rows without a label"),
        (from_file(["a", None], "eval.jsonl"), "eval.jsonl: column label has rows without a label"),
        (source(["a", None]), "train.csv: column label has rows without a label"),
        (source([0, -1], ClassLabel(names=["a", "b"])), "train.csv: column label has rows without a label"),
        (from_file([1.5]), "train.csv: column label holds 1.5: a class is a whole number or a text"),
        (from_file([["a"]]), "train.csv: column label holds ['a']: a class is a whole number or a text"),
    ],
)
def test_a_row_whose_label_is_no_class_is_refused(evaluation: Source, message: str) -> None:
    assert refusal(evaluation, ("a", "b", "c")) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "a"], "train.csv: column label has one class only (a)"),
        (["a", ""], "train.csv: column label has rows without a label"),
        (["a", None], "train.csv: column label has rows without a label"),
        ([1.0, 2.0], "train.csv: column label holds 1.0: a class is a whole number or a text"),
    ],
)
def test_training_data_that_does_not_define_classes_is_refused(values: list[Any], message: str) -> None:
    assert refusal(from_file(values)) == message


def test_many_classes_are_not_all_listed() -> None:
    names = tuple(str(i) for i in range(20))
    assert "classes (0, 1, 2, 3, 4, 5, 6, 7, ...)" in refusal(from_file(["x"]), names)
