"""Statistics are exact for any chunks of the table, and notes appear only above their thresholds."""

import json
import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from job.data.statistics import Part, describe, lines

Texts = Sequence[str] | Sequence[tuple[str, str]]


def chunked(texts: Sequence[str], chunk: int = 3, kind: Any = None) -> pa.ChunkedArray:
    chunks = [pa.array(texts[start : start + chunk], kind or pa.string()) for start in range(0, len(texts), chunk)]
    return pa.chunked_array(chunks, kind or pa.string())


def part(texts: Texts, labels: Any = None, lengths: Any = None, cut: int = 0, chunk: int = 3) -> Part:
    """A split; texts are strings, or pairs of them. The first `cut` rows are truncated; `lengths` repeat as needed."""
    rows = [text if isinstance(text, tuple) else (text,) for text in texts]
    columns = [chunked(column, chunk) for column in zip(*rows, strict=True)] if rows else chunked([])
    tokens = np.resize(np.array([5] if lengths is None else lengths, dtype=np.int32), len(texts))
    return Part(columns, tokens, np.arange(len(texts)) < cut, None if labels is None else np.asarray(labels))


def numbered(size: int, start: int = 0) -> list[str]:
    """Texts that are all different."""
    return [f"text {i}" for i in range(start, start + size)]


def classes(*counts: int) -> np.ndarray:
    return np.repeat(np.arange(len(counts)), counts)


def golden(text: str) -> list[str]:
    return textwrap.dedent(text).strip("\n").splitlines()


def notes(description: dict[str, Any]) -> list[str]:
    return [line.removeprefix("note").strip() for line in lines(description) if line.startswith("note")]


# ---------------------------------------------------------------------------------------------------------------------
# Counting


def test_all_statistics_of_a_small_dataset() -> None:
    train = part(["a", "b", "a", "c", "b", "a"], [0, 1, 0, 1, 0, 0], lengths=[3, 4, 3, 8, 4, 3], cut=3)
    validation = part(["b", "x", "b"], [1, 0, 0], lengths=[4, 6, 4])
    test = part(["c", "y"])
    assert describe({"train": train, "validation": validation, "test": test}, ("no", "yes"), 8) == {
        "max_seq_length": 8,
        "train": {
            "rows": 6,
            "classes": {"no": 4, "yes": 2},
            "tokens": {"mean": 25 / 6, "p50": 3, "p90": 8, "p99": 8, "max": 8},
            "truncated": 0.5,
            "duplicates": 3,
            "conflicting": 2,
        },
        "validation": {
            "rows": 3,
            "classes": {"no": 2, "yes": 1},
            "tokens": {"mean": 14 / 3, "p50": 4, "p90": 6, "p99": 6, "max": 6},
            "truncated": 0.0,
            "duplicates": 1,
            "conflicting": 2,
        },
        "overlap": 2,
        "test": {
            "rows": 2,
            "tokens": {"mean": 5.0, "p50": 5, "p90": 5, "p99": 5, "max": 5},
            "truncated": 0.0,
            "duplicates": 0,
        },
        "test_overlap": 1,
    }


def test_pairs_are_equal_only_if_both_texts_are_in_the_same_order() -> None:
    train = part([("a", "bc"), ("ab", "c"), ("bc", "a"), ("", "abc"), ("abc", ""), ("a", "a"), ("b", "b")])
    validation = part([("a", "bc"), ("c", "ab"), ("b", "b"), ("b", "b")])
    description = describe({"train": train, "validation": validation}, (), 8)
    assert (description["train"]["duplicates"], description["validation"]["duplicates"]) == (0, 1)
    assert description["overlap"] == 3


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_the_type_and_the_slicing_of_the_column_do_not_matter(kind: Any) -> None:
    """A selected or sliced table has offsets that do not begin at 0, and splits need not have the same type."""
    texts = ["left out", "é", "", "é", "\0", "\0\0", "left out"]
    sliced = Part(chunked(texts, 4, kind)[1:6], np.full(5, 2, np.int32), np.zeros(5, bool), None)
    description = describe({"train": sliced, "validation": part(["é", "left out", ""])}, (), 8)
    assert description["train"]["duplicates"] == 1
    assert description["overlap"] == 2


def test_multi_label_statistics() -> None:
    labels = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 1, 0]], dtype=np.int8)
    for values in (labels, labels.astype(bool)):
        train = describe({"train": part(["a", "a", "b", "c"], values)}, ("x", "y", "z"), 8)["train"]
        assert train["classes"] == {"x": 3, "y": 2, "z": 0}
        assert train["labels_per_row"] == 1.25
        assert train["conflicting"] == 2


def test_many_multi_label_rows_do_not_overflow_int8() -> None:
    labels = np.ones((300, 2), dtype=np.int8)
    assert describe({"train": part(numbered(300), labels)}, ("x", "y"), 8)["train"]["classes"] == {"x": 300, "y": 300}


def test_regression_statistics() -> None:
    train = describe({"train": part(["a", "a", "b", "b"], [1.0, 1.0, 2.0, 4.0])}, (), 8)["train"]
    assert train["labels"] == {"mean": 2.0, "sd": pytest.approx(1.5**0.5), "min": 1.0, "max": 4.0}
    assert train["conflicting"] == 2
    assert "classes" not in train


def test_a_percentile_is_one_of_the_lengths() -> None:
    tokens = describe({"train": part(numbered(100), lengths=range(1, 101))}, (), 128)["train"]["tokens"]
    assert tokens == {"mean": 50.5, "p50": 50, "p90": 90, "p99": 99, "max": 100}


def test_an_empty_split_has_statistics() -> None:
    for labels, names in (([], ()), (np.zeros(0, int), ("x",)), (np.zeros((0, 2), bool), ("x", "y"))):
        description = describe({"train": part([], labels), "validation": part(["a"])}, names, 8)
        assert description["train"]["rows"] == description["train"]["tokens"]["max"] == description["overlap"] == 0
        json.dumps(description, allow_nan=False)
        assert notes(description)[0] == "only 0 training rows: too few to learn from"


def test_members_of_different_size_are_rejected() -> None:
    whole = part(["a", "b"], [0, 1])
    for broken in (
        Part(chunked(["a"]), whole.lengths, whole.truncated, whole.labels),
        Part([whole.texts, chunked(["a"])], whole.lengths, whole.truncated, whole.labels),
        Part(whole.texts, whole.lengths, whole.truncated[:1], whole.labels),
        Part(whole.texts, whole.lengths, whole.truncated, np.zeros(1, dtype=np.int64)),
    ):
        with pytest.raises(ValueError, match="2 lengths, but 1 rows"):
            describe({"train": broken}, ("x", "y"), 8)


SHORT = st.text("ab", max_size=3)
LABELS = {
    "classes": st.integers(0, 2),
    "regression": st.sampled_from([0.0, 0.5, 1.0]),
    "multi-label": st.tuples(st.booleans(), st.booleans(), st.booleans()),
}
TYPES = {"classes": np.int64, "regression": np.float64, "multi-label": bool}


@st.composite
def splits(draw: st.DrawFn) -> tuple[str, list[tuple[Any, Any]], list[tuple[Any, Any]], int]:
    """(kind of labels, rows of train, rows of validation, rows in a chunk); a row is a text or pair and its label."""
    kind = draw(st.sampled_from(sorted(LABELS)))
    text = st.tuples(SHORT, SHORT) if draw(st.booleans()) else SHORT
    rows = st.lists(st.tuples(text, LABELS[kind]), min_size=1, max_size=30)
    return kind, draw(rows), draw(rows), draw(st.integers(1, 8))


@given(splits())
def test_counts_equal_those_of_python_sets(drawn: tuple[str, list[Any], list[Any], int]) -> None:
    kind, train, validation, chunk = drawn
    made = {
        name: part([text for text, _ in rows], np.array([label for _, label in rows], TYPES[kind]), chunk=chunk)
        for name, rows in (("train", train), ("validation", validation))
    }
    description = describe(made, ("x", "y", "z"), 8)
    json.dumps(description, allow_nan=False)
    for name, rows in (("train", train), ("validation", validation)):
        labels_of = {text: {label for other, label in rows if other == text} for text, _ in rows}
        assert description[name]["rows"] == len(rows)
        assert description[name]["duplicates"] == len(rows) - len(labels_of)
        assert description[name]["conflicting"] == sum(len(labels_of[text]) > 1 for text, _ in rows)
    assert description["overlap"] == sum(text in {text for text, _ in train} for text, _ in validation)
    if kind == "classes":
        counts = Counter(label for _, label in train)
        assert description["train"]["classes"] == {name: counts[i] for i, name in enumerate("xyz")}
    assert lines(description)


# ---------------------------------------------------------------------------------------------------------------------
# Lines and notes


def test_lines_of_balanced_classes() -> None:
    parts = {
        "train": part(numbered(1200), classes(400, 410, 390), lengths=[9, 12, 130], cut=60),
        "validation": part(numbered(90, 2000), classes(30, 30, 30), lengths=[8, 11, 64]),
    }
    assert lines(describe(parts, ("bad", "fair", "good"), 130)) == golden("""
        train       1,200 rows, tokens p50 12, p90 130, max 130, truncated 5.0 %
        validation     90 rows, tokens p50 11, p90  64, max  64, truncated 0.0 %
        classes     bad 400, fair 410, good 390
    """)


def test_lines_of_many_classes() -> None:
    names = [f"intent_{i}" for i in range(77)]
    counts = [20 + i % 7 for i in range(76)] + [50]
    parts = {"train": part(numbered(sum(counts)), classes(*counts), lengths=[12])}
    assert lines(describe(parts, names, 64)) == golden("""
        train       1,795 rows, tokens p50 12, p90 12, max 12, truncated 0.0 %
        classes     77
          largest   intent_76 50, intent_6 26, intent_13 26, intent_20 26, intent_27 26
          smallest  intent_42 20, intent_49 20, intent_56 20, intent_63 20, intent_70 20
    """)


def test_lines_of_uneven_classes() -> None:
    parts = {
        "train": part(numbered(1000), classes(870, 130)),
        "validation": part(numbered(100, 1000), classes(85, 15)),
    }
    assert lines(describe(parts, ("negative", "positive"), 64)) == golden("""
        train       1,000 rows, tokens p50 5, p90 5, max 5, truncated 0.0 %
        validation    100 rows, tokens p50 5, p90 5, max 5, truncated 0.0 %
        classes     negative 870, positive 130
        note        imbalanced classes, negative 870 to positive 130 rows: always predicting negative gives accuracy 0.85; look at f1_macro
    """)  # noqa: E501


def test_lines_with_every_note() -> None:
    train = [*numbered(50), *numbered(6), "text 0"]
    parts = {
        "train": part(train, [*classes(28, 22), 0, 0, 0, 1, 1, 1, 0], cut=4),
        "validation": part([*numbered(1), *numbered(9, 100), "text 100"], classes(6, 5), cut=5),
        "test": part([*numbered(2, 10), *numbered(8, 200)]),
    }
    assert lines(describe(parts, ("no", "yes", "maybe"), 5)) == golden("""
        train       57 rows, tokens p50 5, p90 5, max 5, truncated 7.0 %
        validation  11 rows, tokens p50 5, p90 5, max 5, truncated 45.5 %
        test        10 rows, tokens p50 5, p90 5, max 5, truncated 0.0 %
        classes     no 32, yes 25, maybe 0
        note        no training rows of class maybe: it cannot be learned
        note        7 training rows, 1 evaluation row with the same text as an earlier row of the split: counted twice
        note        6 training rows, 2 evaluation rows with a text that also has a different label: not all can be predicted correctly
        note        1 evaluation row with a text of the training data: scores will be optimistic
        note        2 test rows with a text of the training data: scores will be optimistic
        note        7.0 % of the training rows are truncated to 5 tokens: raise --max_seq_length if the model allows it
        note        45.5 % of the evaluation rows are truncated to 5 tokens: raise --max_seq_length if the model allows it
    """)  # noqa: E501


def test_lines_of_regression_data() -> None:
    parts = {"train": part(numbered(4), [0.0, 2.5, 5.0, 5.0]), "validation": part(numbered(2, 10), [1.0, 2.0])}
    assert lines(describe(parts, (), 64)) == golden("""
        train       4 rows, tokens p50 5, p90 5, max 5, truncated 0.0 %
        validation  2 rows, tokens p50 5, p90 5, max 5, truncated 0.0 %
        labels      mean 3.125, sd 2.073, 0 to 5
    """)


def test_lines_of_multi_label_data() -> None:
    labels = np.zeros((10, 3), dtype=np.int8)
    labels[:9, 0], labels[:4, 1], labels[:2, 2] = 1, 1, 1
    assert lines(describe({"train": part(numbered(10), labels)}, ("joy", "anger", "fear"), 64)) == golden("""
        train    10 rows, tokens p50 5, p90 5, max 5, truncated 0.0 %
        classes  joy 9, anger 4, fear 2; 1.50 per row
        note     imbalanced classes, joy 9 to fear 2 rows: rare classes barely affect micro-averaged scores; look at f1_macro
    """)  # noqa: E501


def test_lines_of_evaluation_only() -> None:
    parts = {"validation": part(numbered(9), classes(8, 1))}
    assert lines(describe(parts, ("no", "yes"), 64)) == golden("""
        validation  9 rows, tokens p50 5, p90 5, max 5, truncated 0.0 %
        classes     no 8, yes 1
        note        imbalanced classes, no 8 to yes 1 rows: always predicting no gives accuracy 0.89; look at f1_macro
    """)
    assert lines({"max_seq_length": 64}) == []


@pytest.mark.parametrize(
    ("train", "word"),
    [
        (part(numbered(8), classes(6, 2)), None),
        (part(numbered(9), classes(7, 2)), "imbalanced"),
        (part(numbered(2), classes(2, 0)), "no training rows of class y:"),
        (part(numbered(1), classes(1, 0)), "only 1 training row: too few"),
        (part(numbered(40), classes(20, 20), cut=2), None),
        (part(numbered(40), classes(20, 20), cut=3), "7.5 % of the training rows"),
        (part(["a", "a", "b"], [0, 0, 1]), "1 training row with the same text as an earlier"),
        (part(["a", "a", "b"], [0, 1, 1]), "2 training rows with a text that also has a different label"),
    ],
)
def test_a_note_appears_at_its_threshold(train: Part, word: str | None) -> None:
    actual = notes(describe({"train": train, "validation": part(numbered(4, 100), classes(2, 2))}, ("x", "y"), 64))
    assert any(note.startswith(word) for note in actual) if word else not actual


def test_overlap_is_noted_only_if_present() -> None:
    train = part(numbered(4), classes(2, 2))
    for validation, count in ((part(numbered(4, 4), classes(2, 2)), 0), (part(numbered(4, 3), classes(2, 2)), 1)):
        actual = notes(describe({"train": train, "validation": validation}, ("x", "y"), 64))
        assert len(actual) == count
        assert all(note.startswith("1 evaluation row with a text of the training data") for note in actual)


def test_class_names_are_shortened_to_one_line() -> None:
    names = ["two\nlines", "n" * 60]
    actual = lines(describe({"train": part(numbered(2), classes(1, 1))}, names, 64))
    assert actual[1] == f"classes  two lines 1, {'n' * 37}... 1"


def test_many_classes_without_rows_are_not_all_listed() -> None:
    actual = notes(describe({"train": part(numbered(2), classes(2, *[0] * 8))}, list("abcdefghi"), 64))
    assert actual == ["no training rows of class b, c, d, e, f and 3 more: it cannot be learned"]


def test_row_indices_select_from_the_whole_column() -> None:
    texts = pa.chunked_array([["a", "b"], ["a", "c", "b"]])
    lengths, truncated = np.array([1, 1, 1], dtype=np.int32), np.zeros(3, dtype=bool)
    chosen = Part(texts, lengths, truncated, None, rows=np.array([1, 3, 4]))
    alone = Part(pa.chunked_array([["b", "c", "b"]]), lengths, truncated, None)
    assert describe({"train": chosen}, (), 9) == describe({"train": alone}, (), 9)
