"""Every row gets the id of its class; an unknown class is rejected with its row."""

from typing import Any

import pytest
from datasets import ClassLabel
from hypothesis import given
from hypothesis import strategies as st

from job.config.tasks import REGRESSION, SINGLE_LABEL, Kind, Task
from job.data.labels import column as label_column
from job.data.sources import Source
from job.errors import Refused
from tests.support.labels import (
    SPLIT,
    classes,
    encode,
    from_csv,
    from_json,
    of_table,
    refusal,
    refusal_of,
    several,
    source,
    task_of,
)


@given(st.lists(st.integers(-20, 20) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2))
def test_every_row_gets_the_id_of_its_class(values: list[Any]) -> None:
    train = from_json(values)
    try:
        task = task_of(train)
    except Refused:  # one class only, a blank label, or a text among nine numbers
        return
    names, numbers = task.names, encode(train, task)
    assert (task.kind, numbers.dtype) == (SINGLE_LABEL, "int64")
    assert [names[number] for number in numbers] == [str(value) for value in values]
    assert task_of(from_json(values[::-1])).names == names


def test_rows_of_several_chunks_get_consistent_ids() -> None:
    from datasets import concatenate_datasets

    table = concatenate_datasets([source(["b", "a"]).table, source(["c", "a"]).table])
    train = of_table(table, label_column.from_table(table, "label"))
    names = task_of(train).names
    assert [names[i] for i in encode(train, classes(*names))] == ["b", "a", "c", "a"]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [None, REGRESSION, SINGLE_LABEL])
def test_a_non_finite_label_is_rejected_with_its_row(value: float, kind: Kind | None) -> None:
    assert refusal(source([1.5, value]), kind).startswith(f"{SPLIT}, row 2: label {value}")


def test_a_test_set_with_an_invalid_number_may_have_no_label() -> None:
    numbers = Task(REGRESSION, ("score",))
    message = refusal_of(source([float("nan")], to_predict=True), numbers)
    assert message.endswith("correct it or remove the row, or add --no_label")
    assert refusal_of(source([float("nan")]), numbers).endswith("correct it or remove the row")


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (
            from_json(["a", "d"], "eval.csv"),
            "eval.csv, row 2: label 'd' is not one of the 3 classes (a, b, c): "
            "remove these rows, or train on data that has them",
        ),
        (
            source([0, 1], ClassLabel(names=["a", "x"]), "hub (test)", to_predict=True),
            "hub (test), row 2: label 'x' is not one of the 3 classes (a, b, c): "
            "remove these rows, or add --no_label if label is not the label",
        ),
        (from_csv(["a", ""], "eval.csv"), "eval.csv, row 2: no label in column label: add it or remove the row"),
        (from_csv([" ", "a"], "eval.csv"), "eval.csv, row 1: no label in column label: add it or remove the row"),
        (from_json(["a", None], "e.jsonl"), "e.jsonl, row 2: no label in column label: add it or remove the row"),
        (source(["a", None]), "train.csv, row 2: no label in column label: add it or remove the row"),
        (
            source(["a", None], to_predict=True),
            "train.csv, row 2: no label in column label: label every row, or add --no_label",
        ),
        (
            source([0, -1], ClassLabel(names=["a", "b"])),
            "train.csv, row 2: no label in column label: add it or remove the row",
        ),
        (
            from_json([1.5]),
            "train.csv, row 1: label '1.5' is not one of the 3 classes (a, b, c): "
            "remove these rows, or train on data that has them",
        ),
        (from_json([["a"]]), "train.csv, row 1: label ['a']: a class is an integer or text"),
    ],
)
def test_a_row_with_an_unknown_class_is_rejected(evaluation: Source, message: str) -> None:
    assert refusal_of(evaluation, classes("a", "b", "c")) == message


def test_many_classes_are_not_all_listed() -> None:
    names = [str(i) for i in range(20)]
    assert "classes (0, 1, 2, 3, 4, 5, 6, 7, ...)" in refusal_of(from_json(["x"]), classes(*names))


@pytest.mark.parametrize(
    "values",
    [
        source(["LABEL_1", "LABEL_0"]),
        source([1, 0]),
        source(["1", "0"]),
        from_csv(["1", "0"]),
        source([1, 0], ClassLabel(names=["negative", "positive"])),
        source([0, 1], ClassLabel(names=["LABEL_1", "LABEL_0"])),
    ],
)
def test_default_class_names_of_a_model_also_match_by_number(values: Source) -> None:
    assert encode(values, classes("LABEL_0", "LABEL_1")).tolist() == [1, 0]


def test_numbers_do_not_match_classes_with_names() -> None:
    assert "label '1' is not one of the 2 classes (no, yes)" in refusal_of(source([1, 0]), classes("no", "yes"))
    assert "label '2' is not one of the 2 classes (LABEL_0, LABEL_1)" in refusal_of(
        source([2]), classes("LABEL_0", "LABEL_1")
    )
    three = source([1, 0], ClassLabel(names=["a", "b", "c"]))
    assert "is not one of the 2 classes (LABEL_0, LABEL_1)" in refusal_of(three, classes("LABEL_0", "LABEL_1"))


def test_default_class_names_in_lists_also_match_by_number() -> None:
    task = several("LABEL_0", "LABEL_1", "LABEL_2")
    assert encode(from_json([["2", "LABEL_0"], [1]]), task).tolist() == [[1, 0, 1], [0, 1, 0]]
