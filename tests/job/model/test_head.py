"""What the head of a model predicts according to config.json, and invalid entries."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import BertConfig

from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Task
from job.errors import Refused
from job.model import head

CLASSIFIER = ["BertForSequenceClassification"]
SCORE = Task(REGRESSION, ("score",))


def task(id2label: dict[int, Any], required: bool = True, **more: Any) -> Task | None:
    options = {"architectures": CLASSIFIER} | more
    return head.own_task(BertConfig(id2label=id2label, **options), required)


@pytest.mark.parametrize("name", ["relevance", "LABEL_0"])
@pytest.mark.parametrize("kind", [None, "regression"])
def test_a_single_output_is_a_number_regardless_of_its_name(name: str, kind: str | None) -> None:
    assert task({0: name}, problem_type=kind) == SCORE


def test_one_label_that_applies_or_not_is_no_number() -> None:
    assert task({0: "spam"}, problem_type="multi_label_classification") == Task(MULTI_LABEL, ("spam",))


def test_default_names_are_the_answers_of_a_classifier() -> None:
    names = {0: "LABEL_0", 1: "LABEL_1"}
    assert task(names) == Task(SINGLE_LABEL, ("LABEL_0", "LABEL_1"))
    assert task(names, architectures=None) == Task(SINGLE_LABEL, ("LABEL_0", "LABEL_1"))
    assert task(names, architectures=["BertModel"]) is None
    assert task({0: "LABEL_0"}, architectures=["BertModel"]) is None


def test_names_that_are_numbers_become_text() -> None:
    assert task({0: 1, 1: 2.5}) == Task(SINGLE_LABEL, ("1", "2.5"))


@pytest.mark.parametrize(
    ("id2label", "more", "said"),
    [
        ({0: "joy", 1: "fear"}, {"problem_type": "regression"}, "the model predicts 2 numbers for a text"),
        ({0: "a", 1: "b"}, {"problem_type": "sorting"}, "problem_type in the model's config.json is 'sorting'"),
        ({0: "a", 1: "a"}, {}, "has the class name 'a' twice"),
        ({0: 1, 1: "1"}, {}, "has the class name '1' twice"),
        ({0: None, 1: "a"}, {}, "holds None: a class name is a text"),
        ({0: "a", 1: ""}, {}, "holds '': a class name is a text"),
        ({1: "a", 2: "b"}, {}, "numbers its classes 1, 2: they must be numbered from 0"),
    ],
)
def test_a_head_that_cannot_be_understood_is_rejected_or_replaced(
    id2label: dict[int, Any], more: dict[str, Any], said: str
) -> None:
    with pytest.raises(Refused, match=said):
        task(id2label, **more)
    assert task(id2label, required=False, **more) is None, "training makes a new one"


@pytest.mark.parametrize(
    "architecture", ["ModernBertForTokenClassification", "BertForMultipleChoice", "XLNetForQuestionAnsweringSimple"]
)
def test_a_head_for_another_task_is_rejected_or_replaced(architecture: str) -> None:
    """Its class names may be those of words: O, B-PER, I-PER."""
    named: dict[int, Any] = {0: "O", 1: "B-PER", 2: "I-PER"}
    with pytest.raises(Refused, match=f"the model is a {architecture} .*, which does not classify texts: fine-tune it"):
        task(named, architectures=[architecture])
    assert task(named, architectures=[architecture], required=False) is None
    assert task(named, architectures=["OwnClassifier"]) == Task(SINGLE_LABEL, ("O", "B-PER", "I-PER"))
