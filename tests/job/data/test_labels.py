"""Class numbers depend on the labels, not on the order of the rows; what is no class is refused by name."""

import json
from decimal import Decimal
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, List, Value
from hypothesis import given
from hypothesis import strategies as st

from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, Task
from job.data import label_column, labels
from job.data.columns import Columns
from job.data.labels import Reading
from job.data.sources import Source
from job.errors import Refused

SPLIT = "train.csv"
MISTAKE = "is not a number and nearly all others are: correct it or remove the row"
OTHER_FORM = "is a number only without its unit or decimal comma: write it so that it is one"


def source(values: list[Any], feature: Any = None, origin: str = SPLIT, to_predict: bool = False) -> Source:
    """A table whose column has a type, as parquet and data sets have."""
    features = None if feature is None else Features({"label": feature})
    table = Dataset.from_dict({"label": values}, features=features)
    return of_table(table, label_column.from_table(table, "label"), origin, to_predict)


def of_table(table: Dataset, column: label_column.LabelColumn, origin: str = SPLIT, to_predict: bool = False) -> Source:
    return Source(table, Columns(("text",), "label"), origin, "fingerprint", column, to_predict)


def from_json(values: list[Any], origin: str = SPLIT, to_predict: bool = False) -> Source:
    """As jsonl files are read: each label as JSON text."""
    table = Dataset.from_dict(
        {"label": [json.dumps(value) for value in values]}, features=Features({"label": Value("string")})
    )
    return of_table(table, label_column.from_table(table, "label", as_json=True), origin, to_predict)


def from_csv(values: list[str], origin: str = SPLIT, to_predict: bool = False) -> Source:
    """As csv files are read: all is text."""
    table = from_json(values).table
    return of_table(table, label_column.from_table(table, "label", as_json=True, untyped=True), origin, to_predict)


def task_of(train: Source, of_model: Task | None = None, kind: Kind | None = None) -> Task:
    return labels.read_task(train, of_model, kind).task


def encode(read: Source, task: Task, indicators: bool = False) -> Any:
    return labels.encode(read, Reading(task, indicators))


def encoded(train: Source, kind: Kind | None = None) -> list[Any]:
    """The labels of training data as they are read of themselves."""
    return labels.encode(train, labels.read_task(train, None, kind)).tolist()


def classes(*names: str) -> Task:
    return Task(SINGLE_LABEL, names)


def several(*names: str) -> Task:
    return Task(MULTI_LABEL, names)


def refusal(values: Source, kind: Kind | None = None) -> str:
    with pytest.raises(Refused) as caught:
        labels.encode(values, labels.read_task(values, None, kind))
    return str(caught.value)


def refusal_of(values: Source, task: Task, indicators: bool = False) -> str:
    with pytest.raises(Refused) as caught:
        encode(values, task, indicators)
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
    assert task_of(from_json(values)).names == task_of(from_json(values[::-1])).names == names


@pytest.mark.parametrize(
    ("values", "names"), [([10, 2], ("2", "10")), (["10", "2"], ("2", "10")), ([True, False], ("False", "True"))]
)
def test_a_typed_table_gives_the_same_order_as_a_file(values: list[Any], names: tuple[str, ...]) -> None:
    assert task_of(source(values)).names == names == task_of(from_json(values)).names


def test_declared_classes_keep_their_order_even_where_one_has_no_row() -> None:
    train = source([0, 2, 0], ClassLabel(names=["z", "b", "a"]))
    assert task_of(train).names == ("z", "b", "a")
    assert encode(train, classes("z", "b", "a")).tolist() == [0, 2, 0]


def test_a_model_with_the_same_names_keeps_its_order() -> None:
    train = source([0, 1], ClassLabel(names=["neg", "pos"]))
    assert task_of(train, classes("pos", "neg")).names == ("pos", "neg")
    assert encode(train, classes("pos", "neg")).tolist() == [1, 0]


@pytest.mark.parametrize("of_model", [("neg",), ("neg", "pos", "neutral"), ("Neg", "Pos"), ()])
def test_a_model_with_other_names_does_not_matter(of_model: tuple[str, ...]) -> None:
    assert task_of(from_json(["pos", "neg"]), classes(*of_model)).names == ("neg", "pos")


@given(st.lists(st.integers(-20, 20) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2))
def test_every_row_gets_the_number_of_its_own_name(values: list[Any]) -> None:
    train = from_json(values)
    try:
        task = task_of(train)
    except Refused:  # one class only, a blank label, or a text among nine numbers
        return
    names, numbers = task.names, encode(train, task)
    assert (task.kind, numbers.dtype) == (SINGLE_LABEL, "int64")
    assert [names[number] for number in numbers] == [str(value) for value in values]
    assert task_of(from_json(values[::-1])).names == names


def test_rows_of_several_chunks_are_numbered_alike() -> None:
    from datasets import concatenate_datasets

    table = concatenate_datasets([source(["b", "a"]).table, source(["c", "a"]).table])
    train = of_table(table, label_column.from_table(table, "label"))
    names = task_of(train).names
    assert [names[i] for i in encode(train, classes(*names))] == ["b", "a", "c", "a"]


# ---------------------------------------------------------------------------------------------------------------------
# What text is


@pytest.mark.parametrize("values", [["3.1", "3.10", "2.7"], ["1.0", "2.5"], ["+1", "1"]])
def test_text_of_a_typed_format_is_a_class_also_where_it_looks_like_a_number(values: list[str]) -> None:
    for train in (from_json(values), source(values)):
        reading = labels.read_task(train)
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
        (["+1", "-1"], [1, -1]),
    ],
)
def test_decimal_numbers_of_a_csv_are_regression_which_is_noted(values: list[str], numbers: list[float]) -> None:
    train = from_csv(values)
    reading = labels.read_task(train)
    assert reading.task == Task(REGRESSION, ("score",))
    assert labels.encode(train, reading).tolist() == numbers
    assert reading.notes == (
        "the labels are decimal numbers, read as numbers; --problem_type single_label_classification reads classes",
    )


@pytest.mark.parametrize(
    ("values", "one", "other"),
    [(["3.1", "3.10", "2.7"], "3.1", "3.10"), (["1", "2", "+1"], "+1", "1"), (["5", "1e1", "10"], "10", "1e1")],
)
def test_one_number_in_two_spellings_is_decided_by_the_flag(values: list[str], one: str, other: str) -> None:
    train = from_csv(values)
    assert refusal(train) == (
        f"{SPLIT}: labels {one!r} and {other!r} are one number or two classes: "
        "decide with --problem_type regression or --problem_type single_label_classification"
    )
    assert task_of(train, kind=SINGLE_LABEL).names == tuple(sorted(values))
    assert encoded(train, REGRESSION) == [float(value) for value in values]


def test_two_spellings_by_blanks_only_are_one_number() -> None:
    assert encoded(from_csv(["1.5", " 1.5", "2"])) == [1.5, 1.5, 2]


@pytest.mark.parametrize(
    ("values", "notes"),
    [
        (["0", "1"], 0),
        ([" 0", "1", "0"], 0),
        (["1", "2", "3"], 1),
    ],
)
def test_whole_numbers_are_classes_which_is_noted_from_three_on(values: list[str], notes: int) -> None:
    names = tuple(sorted({value.strip() for value in values}))
    for train in (from_csv(values), from_json([int(value) for value in values])):
        reading = labels.read_task(train)
        assert reading.task == classes(*names)
        assert [names[i] for i in labels.encode(train, reading)] == [value.strip() for value in values]
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
    ],
)
@pytest.mark.parametrize("numbers", [["1.5", "2.25", "4"], ["1", "0", "1"]])
def test_what_is_no_number_among_nine_in_ten_is_rejected_by_its_row(odd: str, why: str, numbers: list[str]) -> None:
    assert refusal(from_csv([*numbers * 3, odd])) == (
        f"{SPLIT}, row 10: label {odd!r} {why}; "
        "if the labels are classes, add --problem_type single_label_classification"
    )
    assert odd in task_of(from_csv([*numbers * 3, odd]), kind=SINGLE_LABEL).names


@pytest.mark.parametrize("values", [["2,2", "1,25", "0,7"], ["0.61%", "3%", "2%"], ["1.5kg", "2.25kg"]])
def test_numbers_that_no_program_reads_are_rejected_and_no_classes(values: list[str]) -> None:
    assert refusal(from_csv(values)).startswith(f"{SPLIT}, row 1: label {values[0]!r} {OTHER_FORM}")


def test_a_missing_value_is_named_before_a_decimal_comma() -> None:
    assert refusal(from_csv([*["2,2"] * 20, "NA"])).startswith(f"{SPLIT}, row 21: label 'NA' is not a number")


@pytest.mark.parametrize(
    "values",
    [["01", "02", "10"], ["2D", "3D"], ["1st", "2nd", "3rd"], ["#1", "#2"], ["class1", "class2"], ["1.5", "A", "B"]],
)
def test_texts_with_digits_are_classes(values: list[str]) -> None:
    assert task_of(from_csv(values)).names == tuple(sorted(values))


def test_a_typed_number_is_no_class_beside_text() -> None:
    assert refusal(from_json([1.5, "a"])) == (
        f"{SPLIT}, row 1: label 1.5 is a number and others are not: a class is a whole number or a text; "
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
def test_floats_are_regression_which_is_noted_where_all_are_whole(
    train: Source, numbers: list[float], notes: int
) -> None:
    reading = labels.read_task(train)
    assert reading.task == Task(REGRESSION, ("score",))
    made = labels.encode(train, reading)
    assert (made.dtype, made.tolist(), len(reading.notes)) == ("float64", numbers, notes)


def test_floats_are_classes_where_the_flag_says_so() -> None:
    train = source([1.0, 2.0, 10.0])
    assert task_of(train, kind=SINGLE_LABEL).names == ("1", "2", "10")
    assert encoded(train, SINGLE_LABEL) == [0, 1, 2]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", [None, REGRESSION, SINGLE_LABEL])
def test_a_label_that_is_no_finite_number_is_refused_by_its_row(value: float, kind: Kind | None) -> None:
    assert refusal(source([1.5, value]), kind).startswith(f"{SPLIT}, row 2: label {value}: ")


# ---------------------------------------------------------------------------------------------------------------------
# What is refused


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        (
            from_json(["a", "d"], "eval.csv"),
            "eval.csv, row 2: label 'd' is not among the 3 classes (a, b, c): "
            "remove these rows, or train on data that has them",
        ),
        (
            source([0, 1], ClassLabel(names=["a", "x"]), "hub (test)", to_predict=True),
            "hub (test), row 2: label 'x' is not among the 3 classes (a, b, c): "
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
            "train.csv, row 1: label '1.5' is not among the 3 classes (a, b, c): "
            "remove these rows, or train on data that has them",
        ),
        (from_json([["a"]]), "train.csv, row 1: label ['a']: a class is a whole number or a text"),
    ],
)
def test_a_row_whose_label_is_no_class_is_refused(evaluation: Source, message: str) -> None:
    assert refusal_of(evaluation, classes("a", "b", "c")) == message


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["a", "a"], "train.csv: column label has only one class (a): two are needed"),
        (["a", ""], "train.csv, row 2: no label in column label: add it or remove the row"),
        ([1.0, None], "train.csv, row 2: no label in column label: add it or remove the row"),
        (
            [["a"], "b"],
            "train.csv, row 2: label 'b' is not a list: for several labels a row, each label is a list "
            "(in jsonl, json or parquet)",
        ),
        ([["a", None]], "train.csv, row 1: label None: a class is a whole number or a text"),
        ([{"a": 1}, {"b": 1}], "train.csv, row 1: label {'a': 1}: a class is a whole number or a text"),
    ],
)
def test_training_data_that_does_not_define_a_task_is_refused(values: list[Any], message: str) -> None:
    assert refusal(from_json(values)) == message


@pytest.mark.parametrize(
    ("train", "kind", "message"),
    [
        (
            from_csv(["a|b", "a"]),
            MULTI_LABEL,
            "train.csv, row 1: label 'a|b' is not a list: for several labels a row, each label is a list "
            "(in jsonl, json or parquet)",
        ),
        (
            from_json([["a"], ["b"]]),
            SINGLE_LABEL,
            "train.csv: column label holds lists: --problem_type single_label_classification needs one label a row, "
            "lists are multi_label_classification",
        ),
        (
            from_csv(["1.5", "a"]),
            REGRESSION,
            "train.csv, row 2: label 'a': the task is regression, where each label is a finite number",
        ),
        (
            from_csv(["1.5", "2,5"]),
            REGRESSION,
            "train.csv, row 2: label '2,5': the task is regression, where each label is a finite number",
        ),
    ],
)
def test_labels_that_the_flag_contradicts_are_refused(train: Source, kind: Kind, message: str) -> None:
    assert refusal(train, kind) == message


def test_many_classes_are_not_all_listed() -> None:
    names = [str(i) for i in range(20)]
    assert "classes (0, 1, 2, 3, 4, 5, 6, 7, ...)" in refusal_of(from_json(["x"]), classes(*names))


# ---------------------------------------------------------------------------------------------------------------------
# Several labels a row


@pytest.mark.parametrize(
    ("train", "names"),
    [
        (from_json([["b", "a"], [], ["b"]]), ("a", "b")),
        (from_json([[10, 2], [], [10]]), ("2", "10")),
        (source([["b", "a"], [], ["b"]]), ("a", "b")),
        (source([[0, 1], [], [0]], List(ClassLabel(names=["b", "a"]))), ("b", "a")),
    ],
)
def test_lists_are_several_labels_a_row(train: Source, names: tuple[str, ...]) -> None:
    reading = labels.read_task(train)
    assert (reading.task, reading.indicators) == (several(*names), False)
    first = names.index("b") if "b" in names else names.index("10")
    assert labels.encode(train, reading).tolist() == [[1, 1], [0, 0], [int(i == first) for i in range(2)]]


VECTORS = [[1, 1, 0], [0, 0, 1], [0, 0, 0], [1, 1, 1]]


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
    reading = labels.read_task(train)
    assert (reading.task, reading.indicators) == (several(*names), True)
    assert labels.encode(train, reading).tolist() == VECTORS
    assert reading.notes == (
        f"the labels are lists of 3 numbers, read as a 0 or 1 for each of the classes {', '.join(names)}; "
        "lists of the classes that apply are read where they are written as text",
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
def test_other_lists_name_classes(values: list[Any], names: tuple[str, ...]) -> None:
    reading = labels.read_task(from_json(values))
    assert (reading.task, reading.indicators) == (several(*names), False)


def test_a_split_is_read_as_the_training_data_was() -> None:
    named = labels.read_task(from_json([[0, 1], [0]]))
    assert labels.encode(from_json([[0, 1], [1, 0]]), named).tolist() == [[1, 1], [1, 1]]
    vectors = labels.read_task(from_json([[0, 1], [0, 0]]))
    assert labels.encode(from_json([[0, 1], [1, 0]]), vectors).tolist() == [[0, 1], [1, 0]]
    assert refusal_of(from_json([[0, 1], [1]]), several("0", "1"), indicators=True) == (
        "train.csv, row 2: label [1]: each label is a list of 2 numbers, 0 or 1 for each class"
    )


def test_a_model_for_another_task_does_not_set_the_order() -> None:
    train = from_json([["b"], ["a"]])
    assert task_of(train, classes("b", "a")).names == ("a", "b")
    assert task_of(train, several("b", "a")).names == ("b", "a")


# ---------------------------------------------------------------------------------------------------------------------
# Without training data


def test_a_models_classes_take_indicator_vectors_in_their_order() -> None:
    reading = labels.read_task_of_model(several("x", "y", "z"), from_json(VECTORS))
    assert reading.indicators and len(reading.notes) == 1
    assert labels.encode(from_json(VECTORS), reading).tolist() == VECTORS
    assert not labels.read_task_of_model(several("0", "1"), from_json(VECTORS)).indicators
    assert not labels.read_task_of_model(several("x", "y", "z"), None).indicators


def test_the_flag_says_what_a_model_answers_that_does_not_say_it() -> None:
    assert labels.read_task_of_model(classes("x", "y"), None, MULTI_LABEL).task == several("x", "y")
    for of_model, kind in ((classes("x", "y"), REGRESSION), (Task(REGRESSION, ("s",)), SINGLE_LABEL)):
        with pytest.raises(Refused, match=f"--problem_type {kind.problem_type}: the model"):
            labels.read_task_of_model(of_model, None, kind)


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
    assert labels.is_unlabelled(test, classes("a", "b")) is unlabelled


def test_a_class_named_minus_one_is_a_label() -> None:
    assert not labels.is_unlabelled(from_json([-1, -1]), classes("-1", "1"))


# ---------------------------------------------------------------------------------------------------------------------
# Notes on names


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
    reading = labels.read_task(make(values))
    assert reading.task.names == tuple(sorted(values))
    assert reading.notes == (note,)


@pytest.mark.parametrize("values", [["hard, but fair", "bad"], ["rock/pop", "jazz"], ["C++", "C"], ["a b", "a"]])
def test_ordinary_names_are_not_noted(values: list[str]) -> None:
    assert labels.read_task(from_csv(values)).notes == ()


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
def test_default_names_of_a_models_classes_are_understood_by_their_numbers_too(values: Source) -> None:
    assert encode(values, classes("LABEL_0", "LABEL_1")).tolist() == [1, 0]


def test_numbers_are_no_names_of_classes_that_have_some() -> None:
    assert "label '1' is not among the 2 classes (no, yes)" in refusal_of(source([1, 0]), classes("no", "yes"))
    assert "label '2' is not among the 2 classes (LABEL_0, LABEL_1)" in refusal_of(
        source([2]), classes("LABEL_0", "LABEL_1")
    )
    three = source([1, 0], ClassLabel(names=["a", "b", "c"]))
    assert "is not among the 2 classes (LABEL_0, LABEL_1)" in refusal_of(three, classes("LABEL_0", "LABEL_1"))


def test_default_names_in_lists_are_understood_by_their_numbers_too() -> None:
    task = several("LABEL_0", "LABEL_1", "LABEL_2")
    assert encode(from_json([["2", "LABEL_0"], [1]]), task).tolist() == [[1, 0, 1], [0, 1, 0]]


def test_data_with_default_names_keeps_the_order_of_a_model_that_has_them() -> None:
    names = tuple(f"LABEL_{i}" for i in range(12))
    assert task_of(source(list(reversed(names))), classes(*names)).names == names
