"""Confident learning by its published rule."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from job.config.tasks import MULTI_LABEL
from job.report.html import label_errors
from job.report.html.predictions import Predicted


def test_the_rows_are_those_of_the_rule_computed_by_hand() -> None:
    """Thresholds: class 0 (0.9 + 0.8 + 0.1) / 3 = 0.6, class 1 (0.7 + 0.9 + 0.45) / 3 = 0.683.

    Row 2 (labelled 0) gives class 1 0.9, above 0.683. Row 5 (labelled 1) gives class 0 0.55, below 0.6: no confident
    error, though it is predicted as 0.
    """
    labels = np.array([0, 0, 0, 1, 1, 1])
    ones = np.array([0.1, 0.2, 0.9, 0.7, 0.9, 0.45])
    rows, classes = label_errors.suspicious(labels, np.stack([1 - ones, ones], axis=1))
    assert (rows.tolist(), classes.tolist()) == ([2], [1])


def test_the_least_probable_label_is_first_and_planted_errors_are_found() -> None:
    rng = np.random.default_rng(0)
    true = rng.integers(0, 5, 2000)
    planted = np.sort(rng.choice(2000, 60, replace=False))
    labels = true.copy()
    labels[planted] = (true[planted] + 1) % 5
    logits = rng.normal(size=(2000, 5)) + 6 * np.eye(5)[true]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows, classes = label_errors.suspicious(labels, probabilities)
    assert len(np.intersect1d(rows, planted)) >= 50
    assert len(np.setdiff1d(rows, planted)) <= 6
    own = probabilities[rows, labels[rows]]
    assert (np.diff(own) >= 0).all()
    hits = np.isin(rows, planted)
    assert (classes[hits] == true[rows[hits]]).mean() > 0.95


def test_a_row_whose_label_is_predicted_is_no_error_and_a_class_without_labels_is_never_likely() -> None:
    labels = np.array([0, 0, 1, 1])
    probabilities = np.array([[0.5, 0.3, 0.2], [0.9, 0.05, 0.05], [0.2, 0.1, 0.7], [0.1, 0.2, 0.7]])
    rows, classes = label_errors.suspicious(labels, probabilities)
    assert 0 not in rows.tolist()
    assert 2 not in classes.tolist()


def test_many_rows_take_little_more_memory_than_their_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 500, 8_000), rng.dirichlet(np.ones(500), 8_000).astype(np.float32)
    monkeypatch.setattr(label_errors, "CELLS_AT_ONCE", 10**9)
    whole = label_errors.suspicious(labels, probabilities)
    monkeypatch.setattr(label_errors, "CELLS_AT_ONCE", 10**5)
    tracemalloc.start()
    rows, classes = label_errors.suspicious(labels, probabilities)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) > 100 and np.array_equal(rows, whole[0]) and np.array_equal(classes, whole[1])
    assert peak < probabilities.nbytes


def test_with_several_labels_each_class_is_a_question_of_its_own() -> None:
    labels = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [0, 0]], dtype=bool)
    yes = np.array([[0.9, 0.1], [0.05, 0.1], [0.1, 0.9], [0.1, 0.8], [0.1, 0.95], [0.2, 0.1]], dtype=np.float32)
    predicted = Predicted(MULTI_LABEL, ("a", "b"), np.arange(6), labels, yes > 0.5, yes)
    found = label_errors.of(predicted)
    assert [(row, number) for row, number, _ in found] == [(1, 0), (4, 1)]
    assert np.allclose([own for _, _, own in found], [0.05, 0.05])
