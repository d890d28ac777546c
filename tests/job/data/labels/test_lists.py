"""Multi-label rows: lists of names, or indicator vectors."""

from decimal import Decimal
from typing import Any

import pytest
from datasets import ClassLabel, List, Value

from job.data.labels import encoding, recognition
from job.data.sources import Source
from job.errors import Refused
from tests.support.labels import SPLIT, encode, encoded, from_json, refusal, refusal_of, several, source

VECTORS = [[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]]


@pytest.mark.parametrize(
    ("train", "names"),
    [
        (from_json([["b", "a"], [], ["b"]]), ("a", "b")),
        (from_json([[10, 2], [], [10]]), ("2", "10")),
        (source([["b", "a"], [], ["b"]]), ("a", "b")),
        (source([[0, 1], [], [0]], List(ClassLabel(names=["b", "a"]))), ("b", "a")),
    ],
)
def test_lists_are_multi_label(train: Source, names: tuple[str, ...]) -> None:
    reading = recognition.read_task(train)
    assert (reading.task, reading.indicators) == (several(*names), ())
    first = names.index("b") if "b" in names else names.index("10")
    assert encoding.encode(train, reading).tolist() == [[1, 1], [0, 0], [int(i == first) for i in range(2)]]


@pytest.mark.parametrize(
    ("train", "names"),
    [
        (from_json(VECTORS), ("0", "1", "2")),
        (from_json([[float(v) for v in row] for row in VECTORS]), ("0", "1", "2")),
        (from_json([[bool(v) for v in row] for row in VECTORS]), ("0", "1", "2")),
        (source(VECTORS), ("0", "1", "2")),
        (source(VECTORS, List(Value("int64"), length=3)), ("0", "1", "2")),
        (source(VECTORS, List(Value("bool"))), ("0", "1", "2")),
        (source(VECTORS, List(Value("float32"), length=3)), ("0", "1", "2")),
        (source(VECTORS, List(ClassLabel(names=["x", "y", "z"]), length=3)), ("x", "y", "z")),
        (source(VECTORS, List(ClassLabel(names=["no", "yes"]))), ("0", "1", "2")),
    ],
)
def test_lists_of_0_and_1_of_one_length_are_indicator_vectors(train: Source, names: tuple[str, ...]) -> None:
    reading = recognition.read_task(train)
    assert (reading.task, reading.indicators) == (several(*names), names)
    assert encoding.encode(train, reading).tolist() == VECTORS
    assert reading.notes == (
        f"the labels are lists of 3 numbers, read as 0 or 1 for each of the classes {', '.join(names)}; "
        "to list the classes that apply instead, write them as text",
    )


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([[0, 1], [0]], ("0", "1")),  # of two lengths
        ([[0], [1]], ("0", "1")),
        ([[0, 1], [1, 2]], ("0", "1", "2")),
        ([["0", "1"], ["1", "0"]], ("0", "1")),
    ],
)
def test_other_lists_are_class_names(values: list[Any], names: tuple[str, ...]) -> None:
    reading = recognition.read_task(from_json(values))
    assert (reading.task, reading.indicators) == (several(*names), ())


def test_texts_0_and_1_are_classes_with_a_note() -> None:
    assert recognition.read_task(from_json([["0", "1"], ["1", "0"]])).notes == (
        "the labels are lists of the texts 0 and 1, read as the classes that apply; for a 0 or 1 for each class, write "
        "them as numbers",
    )
    assert recognition.read_task(from_json([["0", "1"], ["2"]])).notes == ()


@pytest.mark.parametrize("odd", [[], [1], [0, 1, 0, 0]])
def test_indicators_of_different_lengths_are_rejected(odd: list[int]) -> None:
    values = [*VECTORS, odd]
    message = f"{SPLIT}, row 5: label {odd} has another length than [1, 1, 0]: write a 0 or 1 for each class, or the "
    assert refusal(from_json(values)).startswith(message)
    with pytest.raises(Refused, match=r"row 5: label .* has another length than"):
        recognition.read_task_of_model(several("a", "b", "c"), from_json(values, to_predict=True))


def test_indicators_are_not_read_as_lists_of_classes() -> None:
    numbered = several("0", "1", "2")
    message = "eval.csv, row 2: label [1, 1, 0, 1] repeats a class: write the classes that apply (0, 1, 2), each once, "
    read = from_json([[0, 1], [1, 1, 0, 1]], "eval.csv")
    assert refusal_of(read, numbered).startswith(message)
    assert encode(from_json([["0", "0"], [2, 1]]), numbered).tolist() == [[1, 0, 0], [0, 1, 1]]


def test_indicators_may_be_decimals() -> None:
    train = source([[Decimal(v) for v in row] for row in VECTORS], List(Value("decimal128(1, 0)")))
    assert encoded(train) == VECTORS


def test_a_split_is_read_like_the_training_data() -> None:
    named = recognition.read_task(from_json([[0, 1], [0]]))
    assert encoding.encode(from_json([[0, 1], [1, 0]]), named).tolist() == [[1, 1], [1, 1]]
    vectors = recognition.read_task(from_json([[0, 1], [0, 0]]))
    assert encoding.encode(from_json([[0, 1], [1, 0]]), vectors).tolist() == [[0, 1], [1, 0]]
    assert refusal_of(from_json([[0, 1], [1]]), several("0", "1"), indicators=("0", "1")) == (
        "train.csv, row 2: label [1] must be a list of 2 numbers, 0 or 1 for each class"
    )


def indicators(names: list[str], values: list[list[int]]) -> Source:
    """A 0 or 1 for each of the classes that the dataset names."""
    return source(values, List(ClassLabel(names=names)))


ROWS = [[1, 0], [1, 1], [0, 0]]


def test_indicators_are_matched_by_the_names_that_each_file_declares() -> None:
    train = indicators(["sport", "politics"], ROWS)
    other = indicators(["politics", "sport"], ROWS)
    reading = recognition.read_task(train)
    assert reading.task.names == ("sport", "politics")
    assert encoding.encode(train, reading).tolist() == ROWS
    assert encoding.encode(other, reading).tolist() == [[0, 1], [1, 1], [0, 0]]


def test_indicators_are_matched_by_name_where_a_model_has_its_own_order() -> None:
    train, model = indicators(["sport", "politics"], ROWS), several("politics", "sport")
    for reading in (recognition.read_task(train, model), recognition.read_task_of_model(model, train)):
        assert reading.task == model
        assert encoding.encode(train, reading).tolist() == [[0, 1], [1, 1], [0, 0]]
        assert "each of the classes sport, politics;" in reading.notes[0]


def test_a_file_that_names_no_classes_has_the_order_of_the_training_data() -> None:
    reading = recognition.read_task(indicators(["sport", "politics"], ROWS), several("politics", "sport"))
    assert encoding.encode(from_json(ROWS), reading).tolist() == [[0, 1], [1, 1], [0, 0]]


def test_numbered_indicators_are_the_classes_with_these_numbers() -> None:
    model = several("1", "0")
    for reading in (
        recognition.read_task(from_json(ROWS), model),
        recognition.read_task_of_model(model, from_json(ROWS)),
    ):
        assert encoding.encode(from_json(ROWS), reading).tolist() == [[0, 1], [1, 1], [0, 0]]


def test_declared_indicators_of_a_model_with_default_names_are_matched_by_position() -> None:
    train = indicators(["sport", "politics"], ROWS)
    reading = recognition.read_task_of_model(several("LABEL_0", "LABEL_1"), train)
    assert encoding.encode(train, reading).tolist() == ROWS


def test_indicators_of_other_classes_are_rejected() -> None:
    assert refusal_of(indicators(["sport", "culture"], ROWS), several("a", "b"), ("a", "b")) == (
        "train.csv: column label has a 0 or 1 for each of sport, culture, but the classes are a, b: use data with "
        "these classes, or train on data that has them"
    )
