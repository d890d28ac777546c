"""How the task is derived from labels, the model and --problem_type."""

from typing import Any

import pytest
from datasets import ClassLabel, List, Value

from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, Task
from job.data.labels import encoding, recognition
from job.data.sources import Source
from job.errors import Refused
from tests.support.labels import classes, encode, from_csv, from_json, refusal, several, source, task_of

VECTORS = [[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]]


def test_a_model_with_the_same_names_keeps_its_order() -> None:
    train = source([0, 1], ClassLabel(names=["neg", "pos"]))
    assert task_of(train, classes("pos", "neg")).names == ("pos", "neg")
    assert encode(train, classes("pos", "neg")).tolist() == [1, 0]


@pytest.mark.parametrize("of_model", [("neg",), ("neg", "pos", "neutral"), ("Neg", "Pos"), ()])
def test_a_model_with_other_names_does_not_matter(of_model: tuple[str, ...]) -> None:
    assert task_of(from_json(["pos", "neg"]), classes(*of_model)).names == ("neg", "pos")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "a"], "train.csv: column label has only one class (a): at least two are needed"),
        (["a", ""], "train.csv, row 2: no label in column label: add it or remove the row"),
        ([1.0, None], "train.csv, row 2: no label in column label: add it or remove the row"),
        (
            [["a"], "b"],
            "train.csv, row 2: label 'b' is not a list: for several labels per row, write each label as a list "
            "(in jsonl, json or parquet)",
        ),
        ([["a", None]], "train.csv, row 1: label None: a class is an integer or text"),
        ([{"a": 1}, {"b": 1}], "train.csv, row 1: label {'a': 1}: a class is an integer or text"),
    ],
)
def test_training_data_that_does_not_define_a_task_is_rejected(values: list[Any], message: str) -> None:
    assert refusal(from_json(values)) == message


@pytest.mark.parametrize(
    ("train", "kind", "message"),
    [
        (
            from_csv(["a|b", "a"]),
            MULTI_LABEL,
            "train.csv, row 1: label 'a|b' is not a list: for several labels per row, write each label as a list "
            "(in jsonl, json or parquet)",
        ),
        (
            from_json([["a"], ["b"]]),
            SINGLE_LABEL,
            "train.csv: column label contains lists, but --problem_type single_label_classification needs one label "
            "per row: use multi_label_classification",
        ),
        (
            from_csv(["1.5", "a"]),
            REGRESSION,
            "train.csv, row 2: label 'a' is not a finite number, as regression needs: correct it or remove the row",
        ),
        (
            from_csv(["1.5", "2,5"]),
            REGRESSION,
            "train.csv, row 2: label '2,5' is not a finite number, as regression needs: correct it or remove the row",
        ),
    ],
)
def test_labels_that_contradict_the_flag_are_rejected(train: Source, kind: Kind, message: str) -> None:
    assert refusal(train, kind) == message


def test_a_model_for_another_task_does_not_set_the_order() -> None:
    train = from_json([["b"], ["a"]])
    assert task_of(train, classes("b", "a")).names == ("a", "b")
    assert task_of(train, several("b", "a")).names == ("b", "a")


def test_a_models_classes_take_indicator_vectors_in_their_order() -> None:
    reading = recognition.read_task_of_model(several("x", "y", "z"), from_json(VECTORS))
    assert reading.indicators == ("x", "y", "z") and len(reading.notes) == 1
    assert encoding.encode(from_json(VECTORS), reading).tolist() == VECTORS
    assert not recognition.read_task_of_model(several("0", "1"), from_json(VECTORS)).indicators
    assert not recognition.read_task_of_model(several("x", "y", "z"), None).indicators


def test_problem_type_can_make_a_classifier_multi_label_and_nothing_else() -> None:
    assert recognition.read_task_of_model(classes("x", "y"), None, MULTI_LABEL).task == several("x", "y")
    for of_model, kind in ((classes("x", "y"), REGRESSION), (Task(REGRESSION, ("s",)), SINGLE_LABEL)):
        with pytest.raises(Refused, match=f"--problem_type {kind.problem_type}: the model"):
            recognition.read_task_of_model(of_model, None, kind)


@pytest.mark.parametrize(
    ("test", "unlabelled"),
    [
        (source([-1, -1], ClassLabel(names=["a", "b"])), True),
        (from_json([-1, -1]), True),
        (from_csv(["", "-1"]), True),
        (source([None, None], Value("string")), True),
        (source([-1, 0], ClassLabel(names=["a", "b"])), False),
        (from_json([0, 1]), False),
        (from_json(["a", None]), False),
        (from_json([["a"], []]), False),
        (source([["a"], []], List(Value("string"))), False),
    ],
)
def test_a_test_set_is_unlabelled_only_if_no_row_has_a_label(test: Source, unlabelled: bool) -> None:
    assert recognition.is_unlabelled(test, classes("a", "b")) is unlabelled


@pytest.mark.parametrize("test", [from_json([-1, -1]), from_json([-1.0]), from_csv(["-1", ""])])
def test_minus_one_is_a_value_of_a_regression(test: Source) -> None:
    assert not recognition.is_unlabelled(test, Task(REGRESSION, ("score",)))


def test_a_class_named_minus_one_is_a_label() -> None:
    assert not recognition.is_unlabelled(from_json([-1, -1]), classes("-1", "1"))


def test_data_with_default_names_keeps_the_order_of_a_model_that_has_them() -> None:
    names = tuple(f"LABEL_{i}" for i in range(12))
    assert task_of(source(list(reversed(names))), classes(*names)).names == names
