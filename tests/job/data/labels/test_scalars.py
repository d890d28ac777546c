"""One label per row: classes and regression targets are distinguished."""

from decimal import Decimal

import pytest
from datasets import Value

from job.config.tasks import REGRESSION, SINGLE_LABEL, Task
from job.data.labels import column as label_column
from job.data.labels import encoding, recognition
from job.data.labels.source_labels import labels_of
from job.data.sources import Source
from tests.support.labels import SPLIT, classes, encoded, from_csv, from_json, of_table, refusal, source, task_of

MISTAKE = "is not a number, but nearly all others are: correct it or remove the row"

OTHER_FORM = "has a unit, a decimal comma or separated thousands: write it as a plain number"


@pytest.mark.parametrize("values", [["3.1", "3.10", "2.7"], ["1.0", "2.5"], ["+1", "1"]])
def test_text_of_a_typed_format_is_a_class_even_if_it_looks_like_a_number(values: list[str]) -> None:
    for train in (from_json(values), source(values)):
        reading = recognition.read_task(train)
        assert reading.task == classes(*sorted(values))
        assert reading.notes == (
            "the labels are text that looks like numbers, read as classes; --problem_type regression reads numbers",
        )


@pytest.mark.parametrize(
    ("values", "numbers"),
    [
        (["3.800", "5", "-1e-1"], [3.8, 5, -0.1]),
        ([" 2.11", "1.32 ", "4"], [2.11, 1.32, 4]),
        (["1.0", "2.0"], [1, 2]),
        (["+1", "-1", "0.5"], [1, -1, 0.5]),
    ],
)
def test_decimal_numbers_of_a_csv_are_regression_with_a_note(values: list[str], numbers: list[float]) -> None:
    train = from_csv(values)
    reading = recognition.read_task(train)
    assert reading.task == Task(REGRESSION, ("score",))
    assert encoding.encode(train, reading).tolist() == numbers
    assert reading.notes == (
        "the labels are decimal numbers, read as numbers; --problem_type single_label_classification reads classes",
    )


@pytest.mark.parametrize(
    ("values", "one", "other"),
    [(["3.1", "3.10", "2.7"], "3.1", "3.10"), (["1", "2", "+1"], "+1", "1"), (["5", "1e1", "10"], "10", "1e1")],
)
def test_two_spellings_of_a_number_need_the_flag(values: list[str], one: str, other: str) -> None:
    train = from_csv(values)
    assert refusal(train) == (
        f"{SPLIT}: labels {one!r} and {other!r} could be the same number or two classes: "
        "decide with --problem_type regression or --problem_type single_label_classification"
    )
    assert task_of(train, kind=SINGLE_LABEL).names == tuple(sorted(values))
    assert encoded(train, REGRESSION) == [float(value) for value in values]


def test_signed_integers_of_a_csv_are_classes_in_order_of_value() -> None:
    train = from_csv(["+1", "-1", " +1"])
    assert task_of(train).names == ("-1", "+1")
    assert encoded(train) == [1, 0, 1]


def test_integers_that_only_floats_cannot_tell_apart_are_two_classes() -> None:
    values = [2**53, 2**53 + 1, 10**400]
    names = tuple(map(str, values))
    for train in (from_csv(list(names)), from_json(values)):
        assert task_of(train).names == names


def test_an_integer_beyond_floats_is_no_number_to_learn() -> None:
    for train, kind in (
        (from_json([1.5, 10**400]), None),
        (from_json([1, -(10**400)]), REGRESSION),
        (from_csv(["1", "9" * 5000]), None),
    ):
        message = refusal(train, kind)
        assert message.startswith(f"{SPLIT}, row 2: label ") and len(message) < 200
        assert "is not a finite number, as regression needs: correct it or remove the row" in message


def test_an_integer_beyond_floats_in_a_column_declared_as_floats_is_rejected() -> None:
    train = from_json([1, 10**400])
    declared = label_column.as_declared(labels_of(train), Value("float64"))
    assert "row 2: label inf is not a finite number" in refusal(of_table(train.table, declared))


def test_blanks_around_a_number_are_ignored() -> None:
    assert encoded(from_csv(["1.5", " 1.5", "2"])) == [1.5, 1.5, 2]


@pytest.mark.parametrize(
    ("values", "notes"),
    [
        (["0", "1"], 0),
        ([" 0", "1", "0"], 0),
        (["1", "2", "3"], 1),
    ],
)
def test_integers_are_classes_with_a_note_from_three_classes(values: list[str], notes: int) -> None:
    names = tuple(sorted({value.strip() for value in values}))
    for train in (from_csv(values), from_json([int(value) for value in values])):
        reading = recognition.read_task(train)
        assert reading.task == classes(*names)
        assert [names[i] for i in encoding.encode(train, reading)] == [value.strip() for value in values]
        assert len(reading.notes) == notes
    assert encoded(from_csv(values), REGRESSION) == [float(value) for value in values]


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ("NA", MISTAKE),
        ("nan", MISTAKE),
        ("inf", MISTAKE),
        ("1_0", MISTAKE),
        ("2,2", OTHER_FORM),
        ("0.61%", OTHER_FORM),
        ("12 %", OTHER_FORM),
        ("$3.50", OTHER_FORM),
        ("2.5 kg", OTHER_FORM),
        ("1,234.5", OTHER_FORM),
        ("12 345 678", OTHER_FORM),
    ],
)
@pytest.mark.parametrize("numbers", [["1.5", "2.25", "4"], ["1", "0", "1"]])
def test_text_among_90_percent_numbers_is_rejected_with_its_row(odd: str, why: str, numbers: list[str]) -> None:
    assert refusal(from_csv([*numbers * 3, odd])) == (
        f"{SPLIT}, row 10: label {odd!r} {why}; "
        "if the labels are classes, add --problem_type single_label_classification"
    )
    assert odd in task_of(from_csv([*numbers * 3, odd]), kind=SINGLE_LABEL).names


@pytest.mark.parametrize("values", [["2,2", "1,25", "0,7"], ["0.61%", "3%", "2%"], ["1.5kg", "2.25kg"],
                                    ["1 000.5", "950"], ["1'000", "2'000"]])  # fmt: skip
def test_malformed_numbers_are_rejected_instead_of_made_classes(values: list[str]) -> None:
    assert refusal(from_csv(values)).startswith(f"{SPLIT}, row 1: label {values[0]!r} {OTHER_FORM}")


def test_a_missing_value_is_reported_before_a_decimal_comma() -> None:
    assert refusal(from_csv([*["2,2"] * 20, "NA"])).startswith(f"{SPLIT}, row 21: label 'NA' is not a number")


@pytest.mark.parametrize(
    "values",
    [
        ["01", "02", "10"],
        ["2D", "3D"],
        ["1st", "2nd", "3rd"],
        ["#1", "#2"],
        ["1 2", "12 3456"],
        ["class1", "class2"],
        ["1.5", "A", "B"],
    ],
)
def test_texts_with_digits_are_classes(values: list[str]) -> None:
    assert task_of(from_csv(values)).names == tuple(sorted(values))


def test_a_float_among_text_labels_is_rejected() -> None:
    assert refusal(from_json([1.5, "a"])) == (
        f"{SPLIT}, row 1: label 1.5 is a float, but others are not numbers: a class is an integer or text; "
        "if each is a class, add --problem_type single_label_classification"
    )
    assert refusal(from_json([*[0, 1] * 9, "NA"])).startswith(f"{SPLIT}, row 19: label 'NA' is not a number")
    assert task_of(from_json([1.5, "a"]), kind=SINGLE_LABEL).names == ("1.5", "a")


@pytest.mark.parametrize(
    ("train", "numbers", "notes"),
    [
        (from_json([1, 2.5, -3e2]), [1, 2.5, -300], 0),
        (from_json([1.0, 2.0]), [1, 2], 1),
        (source([0.5, 1.0, 0.5], Value("float32")), [0.5, 1, 0.5], 0),
        (source([Decimal("1.50"), Decimal("2.00")]), [1.5, 2], 0),
    ],
)
def test_floats_are_regression_with_a_note_if_all_are_integers(train: Source, numbers: list[float], notes: int) -> None:
    reading = recognition.read_task(train)
    assert reading.task == Task(REGRESSION, ("score",))
    made = encoding.encode(train, reading)
    assert (made.dtype.name, made.tolist(), len(reading.notes)) == ("float64", numbers, notes)


def test_floats_are_classes_with_the_flag() -> None:
    train = source([1.0, 2.0, 10.0])
    assert task_of(train, kind=SINGLE_LABEL).names == ("1", "2", "10")
    assert encoded(train, SINGLE_LABEL) == [0, 1, 2]
