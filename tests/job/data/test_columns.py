"""Columns are recognised by name, never guessed."""

import pytest

from job.data import columns
from job.data.columns import Columns
from job.errors import Refused


def refusal(there: list[str], text: tuple[str, ...] = (), label: str | None = None) -> str:
    with pytest.raises(Refused) as caught:
        columns.choose(there, text, label, "a.csv")
    return str(caught.value)


@pytest.mark.parametrize(
    ("there", "expected"),
    [
        (["text", "label"], Columns(("text",), "label")),
        (["label", "id", "Review"], Columns(("Review",), "label")),
        (["idx", "sentence2", "sentence1", "label"], Columns(("sentence1", "sentence2"), "label")),  # GLUE MRPC
        (["question", "sentence", "label", "idx"], Columns(("question", "sentence"), "label")),  # GLUE QNLI
        (["premise", "hypothesis", "label"], Columns(("premise", "hypothesis"), "label")),  # GLUE MNLI
        (["text", "text_pair", "target"], Columns(("text", "text_pair"), "target")),
    ],
)
def test_usual_names_are_recognised_in_any_order(there: list[str], expected: Columns) -> None:
    assert columns.choose(there, (), None, "a.csv") == expected
    assert columns.choose(there[::-1], (), None, "a.csv") == expected


def test_names_given_beat_names_recognised() -> None:
    there = ["text", "label", "body", "stars"]
    assert columns.choose(there, ("body", "text"), "stars", "a.csv") == Columns(("body", "text"), "stars")


def test_a_column_named_as_text_is_not_taken_for_the_label() -> None:
    assert columns.choose(["intent", "label"], ("intent",), None, "a.csv") == Columns(("intent",), "label")


@pytest.mark.parametrize(
    ("there", "text", "label", "message"),
    [
        (["a", "label"], ("b",), None, "a.csv has no column b: it has a, label"),
        (["text", "a"], (), "b", "a.csv has no column b: it has text, a"),
        ([], ("b",), None, "a.csv has no column b: it has no columns"),
        (
            ["a", "label"],
            (),
            None,
            "a.csv: no column has a usual text name; name it with --text_column_names: it has a, label",
        ),
        (
            ["body", "text", "label"],
            (),
            None,
            "a.csv: more than one column may be the text (body, text); name it with --text_column_names: "
            "it has body, text, label",
        ),
        (
            ["text", "a"],
            (),
            None,
            "a.csv: no column has a usual label name; name it with --label_column_name: it has text, a",
        ),
        (
            ["text", "label", "class"],
            (),
            None,
            "a.csv: more than one column may be the label (label, class); name it with --label_column_name: "
            "it has text, label, class",
        ),
        (
            ["a", "b", "c"],
            ("a", "b", "c"),
            None,
            "--text_column_names takes one column, or two for sentence pairs, not 3",
        ),
    ],
)
def test_doubt_is_refused_with_the_columns_there_are(
    there: list[str], text: tuple[str, ...], label: str | None, message: str
) -> None:
    assert refusal(there, text, label) == message


@pytest.mark.parametrize("text", [("body",), ("text", "body")])
def test_the_label_is_not_read_as_text(text: tuple[str, ...]) -> None:
    """A model that is shown the label scores 1.0 and has learnt nothing."""
    assert "body" in refusal(["text", "body", "label"], text, "body")


def test_a_pair_is_two_columns() -> None:
    assert "text" in refusal(["text", "label"], ("text", "text"))


def test_a_column_there_twice_is_not_chosen_between() -> None:
    assert "text" in refusal(["text", "text", "label"], ("text",))


def test_an_optional_label_is_left_out_only_where_none_can_be_meant() -> None:
    assert columns.choose(["id", "text"], (), None, "a.csv", label_optional=True) == Columns(("text",), None)
    assert columns.choose(["label", "text"], (), None, "a.csv", label_optional=True) == Columns(("text",), "label")
    for there, label in ((["text"], "stars"), (["text", "label", "class"], None)):
        with pytest.raises(Refused):
            columns.choose(there, (), label, "a.csv", label_optional=True)
