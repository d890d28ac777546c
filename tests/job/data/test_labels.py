"""Class numbers depend on the labels, not on the order of the rows; what is no class is refused by name."""

import json
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given
from hypothesis import strategies as st

from job.config import tasks
from job.config.tasks import Task
from job.data import labels
from job.data.columns import Columns
from job.data.sources import Source
from job.errors import Refused


def source(values: list[Any], feature: Any = None, origin: str = "train.csv", json_labels: bool = False) -> Source:
    features = None if feature is None else Features({"label": feature})
    table = Dataset.from_dict({"label": values}, features=features)
    return Source(table, Columns(("text",), "label"), origin, "fingerprint", json_labels)


def from_file(values: list[Any], origin: str = "train.csv") -> Source:
    """As csv and jsonl files are read: each label as JSON text."""
    return source([json.dumps(value) for value in values], Value("string"), origin, json_labels=True)


def classes(names: tuple[str, ...]) -> Task:
    return Task(tasks.SINGLE_LABEL, names)


def refusal(values: Source, names: tuple[str, ...] | None = None) -> str:
    with pytest.raises(Refused) as caught:
        _ = labels.task_of(values) if names is None else labels.encode(values, classes(names))
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
        ([True, False], ("False", "True")),
        (["ä", "z", "a"], ("a", "z", "ä")),
        (["²", "3"], ("3", "²")),
    ],
)
def test_classes_are_ordered_by_number_else_by_text(values: list[Any], names: tuple[str, ...]) -> None:
    assert labels.task_of(from_file(values)).names == names
    assert labels.task_of(from_file(values[::-1])).names == names


@pytest.mark.parametrize(
    ("values", "names"), [([10, 2], ("2", "10")), (["10", "2"], ("2", "10")), ([True, False], ("False", "True"))]
)
def test_a_typed_table_gives_the_same_order_as_a_file(values: list[Any], names: tuple[str, ...]) -> None:
    assert labels.task_of(source(values)).names == names == labels.task_of(from_file(values)).names


def test_declared_classes_keep_their_order_even_where_one_has_no_row() -> None:
    train = source([0, 2, 0], ClassLabel(names=["z", "b", "a"]))
    assert labels.task_of(train).names == ("z", "b", "a")
    assert labels.encode(train, classes(("z", "b", "a"))).tolist() == [0, 2, 0]


def test_a_model_with_the_same_names_keeps_its_order() -> None:
    train = source([0, 1], ClassLabel(names=["neg", "pos"]))
    assert labels.task_of(train, classes(("pos", "neg"))).names == ("pos", "neg")
    assert labels.encode(train, classes(("pos", "neg"))).tolist() == [1, 0]


@pytest.mark.parametrize("of_model", [("neg",), ("neg", "pos", "neutral"), ("Neg", "Pos"), ()])
def test_a_model_with_other_names_does_not_matter(of_model: tuple[str, ...]) -> None:
    assert labels.task_of(from_file(["pos", "neg"]), classes(of_model)).names == ("neg", "pos")


@given(st.lists(st.integers(-20, 20) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2))
def test_every_row_gets_the_number_of_its_own_name(values: list[Any]) -> None:
    train = from_file(values)
    if len({str(value) for value in values}) < 2:
        return
    task = labels.task_of(train)
    if task.kind == tasks.REGRESSION:  # all of them look like 0.5
        return
    names, encoded = task.names, labels.encode(train, task)
    assert encoded.dtype == "int64"
    assert [names[number] for number in encoded] == [str(value) for value in values]
    assert labels.task_of(from_file(values[::-1])).names == names


def test_rows_of_several_chunks_are_numbered_alike() -> None:
    from datasets import concatenate_datasets

    parts = [source(["b", "a"]).table, source(["c", "a"]).table]
    train = Source(concatenate_datasets(parts), Columns(("text",), "label"), "train.csv", "fingerprint")
    names = labels.task_of(train).names
    assert [names[i] for i in labels.encode(train, classes(names))] == ["b", "a", "c", "a"]


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
        (from_file(["a", ""], "eval.csv"), "eval.csv: column label has rows without a label: take them out"),
        (from_file(["a", None], "eval.jsonl"), "eval.jsonl: column label has rows without a label: take them out"),
        (source(["a", None]), "train.csv: column label has rows without a label: take them out"),
        (
            source([0, -1], ClassLabel(names=["a", "b"])),
            "train.csv: column label has rows without a label: take them out",
        ),
        (from_file([1.5]), "train.csv: column label holds 1.5: a class is a whole number or a text"),
        (from_file([["a"]]), "train.csv: column label holds ['a']: a class is a whole number or a text"),
    ],
)
def test_a_row_whose_label_is_no_class_is_refused(evaluation: Source, message: str) -> None:
    assert refusal(evaluation, ("a", "b", "c")) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "a"], "train.csv: column label has one class only (a): two are needed"),
        (["a", ""], "train.csv: column label has rows without a label: take them out"),
        (["a", None], "train.csv: column label has rows without a label: take them out"),
        ([1.0, None], "train.csv: column label has rows without a label: take them out"),
        (
            [["a"], "b"],
            "train.csv: column label holds 'b' beside lists: for several labels a row, each label is a list",
        ),
        ([1.5, True], "train.csv: column label holds 1.5: a class is a whole number or a text"),
        ([1.5, "a"], "train.csv: column label holds 1.5: a class is a whole number or a text"),
    ],
)
def test_training_data_that_does_not_define_a_task_is_refused(values: list[Any], message: str) -> None:
    train = from_file(values)
    with pytest.raises(Refused) as caught:
        labels.encode(train, labels.task_of(train))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("train", "numbers"),
    [
        (from_file([1, 2.5, -3e2]), [1, 2.5, -300]),
        (from_file([1.0, 2.0]), [1, 2]),
        (from_file(["3.800", "5", "-1e-1"]), [3.8, 5, -0.1]),
        (source([0.5, 1.0, 0.5], Value("float32")), [0.5, 1, 0.5]),
    ],
)
def test_numbers_that_are_not_all_whole_are_regression(train: Source, numbers: list[float]) -> None:
    task = labels.task_of(train)
    assert (task.kind, task.names) == (tasks.REGRESSION, ("score",))
    encoded = labels.encode(train, task)
    assert encoded.dtype == "float64"
    assert encoded.tolist() == numbers


@pytest.mark.parametrize("odd", ["nan", "inf", "1_0", "", "a"])
def test_text_beside_numbers_is_never_read_as_a_number(odd: str) -> None:
    train = from_file(["1.5", odd])
    if odd:
        assert labels.task_of(train).kind == tasks.SINGLE_LABEL
    with pytest.raises(Refused):
        labels.encode(train, Task(tasks.REGRESSION, ("score",)) if odd not in ("1_0",) else classes(("1.5",)))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_label_that_is_no_finite_number_is_refused(value: float) -> None:
    train = source([1.5, value])
    with pytest.raises(Refused, match="finite number"):
        labels.encode(train, labels.task_of(train))


@pytest.mark.parametrize(
    ("train", "names"),
    [
        (from_file([["b", "a"], [], ["b"]]), ("a", "b")),
        (from_file([[10, 2], [], [10]]), ("2", "10")),
        (source([["b", "a"], [], ["b"]]), ("a", "b")),
        (source([[0, 1], [], [0]], List(ClassLabel(names=["b", "a"]))), ("b", "a")),
    ],
)
def test_lists_are_several_labels_a_row(train: Source, names: tuple[str, ...]) -> None:
    task = labels.task_of(train)
    assert (task.kind, task.names) == (tasks.MULTI_LABEL, names)
    encoded = labels.encode(train, task)
    first = names.index("b") if "b" in names else names.index("10")
    assert encoded.tolist() == [[1, 1], [0, 0], [int(i == first) for i in range(2)]]


def test_a_model_for_another_task_does_not_set_the_order() -> None:
    train = from_file([["b"], ["a"]])
    assert labels.task_of(train, classes(("b", "a"))).names == ("a", "b")
    assert labels.task_of(train, Task(tasks.MULTI_LABEL, ("b", "a"))).names == ("b", "a")


@pytest.mark.parametrize(
    ("test", "unlabelled"),
    [
        (source([-1, -1], ClassLabel(names=["a", "b"])), True),
        (from_file([-1, -1]), True),
        (from_file(["", "-1"]), True),
        (source([None, None], Value("string")), True),
        (source([-1, 0], ClassLabel(names=["a", "b"])), False),
        (from_file([0, 1]), False),
        (from_file([["a"], []]), False),
        (source([["a"], []], List(Value("string"))), False),
    ],
)
def test_a_test_set_of_withheld_labels_is_known_as_such(test: Source, unlabelled: bool) -> None:
    assert labels.is_unlabelled(test) is unlabelled


def test_many_classes_are_not_all_listed() -> None:
    names = tuple(str(i) for i in range(20))
    assert "classes (0, 1, 2, 3, 4, 5, 6, 7, ...)" in refusal(from_file(["x"]), names)
