"""Columns are recognised by name, never guessed."""

import pytest

from job import config
from job.data import columns
from job.data.columns import Columns, Request
from job.errors import Refused


def choose(there: list[str], text: tuple[str, ...] = (), label: str | None = None) -> Columns:
    return columns.choose(there, Request(text, label), "a.csv")


def refusal(there: list[str], text: tuple[str, ...] = (), label: str | None = None) -> str:
    with pytest.raises(Refused) as caught:
        choose(there, text, label)
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
        (["Text", "Text_pair", "Label"], Columns(("Text", "Text_pair"), "Label")),
        (["QUESTION", "Sentence", "label"], Columns(("QUESTION", "Sentence"), "label")),
        (["Sentence1", "Sentence2", "label"], Columns(("Sentence1", "Sentence2"), "label")),
    ],
)
def test_usual_names_are_recognised_in_any_order(there: list[str], expected: Columns) -> None:
    assert choose(there) == expected
    assert choose(there[::-1]) == expected


def test_given_names_override_recognised_ones() -> None:
    there = ["text", "label", "body", "stars"]
    assert choose(there, ("body", "text"), "stars") == Columns(("body", "text"), "stars")


def test_a_column_named_as_text_is_not_taken_for_the_label() -> None:
    assert choose(["intent", "label"], ("intent",)) == Columns(("intent",), "label")


@pytest.mark.parametrize(
    ("there", "text", "label", "message"),
    [
        (["a", "label"], ("b",), None, "a.csv has no column b; its columns: a, label"),
        (["text", "a"], (), "b", "a.csv has no column b; its columns: text, a"),
        ([], ("b",), None, "a.csv has no column b; its columns: none"),
        (
            ["a", "label"],
            (),
            None,
            "a.csv: no text column recognised: set --text_column_names; its columns: a, label",
        ),
        (
            ["body", "text", "label"],
            (),
            None,
            "a.csv: ambiguous text columns (body, text): set --text_column_names; its columns: body, text, label",
        ),
        (
            ["text", "a"],
            (),
            None,
            "a.csv: no label column recognised: set --label_column_name; its columns: text, a",
        ),
        (
            ["text", "label", "class"],
            (),
            None,
            "a.csv: ambiguous label columns (label, class): set --label_column_name; its columns: text, label, class",
        ),
        (
            ["a", "b", "c"],
            ("a", "b", "c"),
            None,
            "--text_column_names takes one column, or two for sentence pairs, not 3",
        ),
    ],
)
def test_ambiguity_is_rejected_with_a_list_of_columns(
    there: list[str], text: tuple[str, ...], label: str | None, message: str
) -> None:
    assert refusal(there, text, label) == message


@pytest.mark.parametrize("text", [("body",), ("text", "body")])
def test_the_label_is_not_read_as_text(text: tuple[str, ...]) -> None:
    """A model that sees the label as text scores 1.0 and learns nothing."""
    assert "body" in refusal(["text", "body", "label"], text, "body")


def test_a_pair_is_two_columns() -> None:
    assert "text" in refusal(["text", "label"], ("text", "text"))


def test_a_duplicate_column_is_rejected() -> None:
    assert "text" in refusal(["text", "text", "label"], ("text",))


def test_an_optional_label_is_omitted_only_if_no_column_can_be_it() -> None:
    optional = Request(label_required=False)
    assert columns.choose(["id", "text"], optional, "a.csv") == Columns(("text",), None)
    assert columns.choose(["label", "text"], optional, "a.csv") == Columns(("text",), "label")
    with pytest.raises(Refused):
        columns.choose(["text", "label", "class"], optional, "a.csv")


TRAINED = Columns(("sentence1", "sentence2"), "label")


def test_other_splits_have_the_columns_of_the_training_data() -> None:
    for split in ("validation", "test"):
        requested = columns.request(config.Data(), split, TRAINED)
        assert columns.choose(["label", "text", "sentence2", "sentence1"], requested, "b.csv") == TRAINED
        with pytest.raises(Refused) as caught:
            columns.choose(["text", "label"], requested, "b.csv")
        message = "b.csv has no column sentence1, as in the training data; its columns: text, label"
        assert str(caught.value) == message


def test_a_test_set_without_labels_is_predicted_with_a_note() -> None:
    there = ["sentence1", "sentence2", "category"]
    requested = columns.request(config.Data(), "test", TRAINED)
    chosen = columns.choose(there, requested, "b.csv")
    assert chosen == Columns(TRAINED.text, None)
    assert columns.notes(there, requested, chosen, "b.csv") == [
        "b.csv: no column label, so it is predicted but not scored"
    ]
    with pytest.raises(Refused, match="has no column label, as in the training data"):
        columns.choose(there, columns.request(config.Data(), "validation", TRAINED), "b.csv")
    named = config.Data(label_column_name="label")
    with pytest.raises(Refused, match="has no column label"):
        columns.choose(there, columns.request(named, "test", TRAINED), "b.csv")


def test_a_second_text_column_that_training_did_not_have_is_noted() -> None:
    there = ["text", "text_pair", "label"]
    requested = columns.request(config.Data(), "validation", Columns(("text",), "label"))
    chosen = columns.choose(there, requested, "b.csv")
    assert chosen == Columns(("text",), "label")
    assert columns.notes(there, requested, chosen, "b.csv") == [
        "b.csv: column text_pair is ignored, because the training data has only text"
    ]


def test_without_a_label_every_column_is_text() -> None:
    data = config.Data(no_label=True)
    there = ["text", "category", "label"]
    assert columns.choose(there, columns.request(data, "test"), "b.csv") == Columns(("text",), None)
    with pytest.raises(Refused):
        columns.choose(there, columns.request(data, "train"), "b.csv")
