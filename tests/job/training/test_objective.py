"""Class weights: their values, and the loss that they give."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight

from job.batching import planner
from job.config import Training
from job.config.tasks import SINGLE_LABEL, Task
from job.errors import Refused
from job.training import objective
from tests.support.examples import split_of

NAMES = ("red", "green", "blue")
COLORS = Task(SINGLE_LABEL, NAMES)
CPU = torch.device("cpu")


def test_balanced_equals_scikit_learns() -> None:
    labels = np.repeat([0, 1, 2], [10, 70, 3])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=labels)
    np.testing.assert_allclose(objective.of_classes("balanced", NAMES, labels), expected, rtol=1e-7)


def test_a_class_without_rows_does_not_change_the_weights_of_the_others() -> None:
    labels = np.repeat([0, 2], [30, 10])
    expected = compute_class_weight("balanced", classes=np.array([0, 2]), y=labels)
    actual = objective.of_classes("balanced", NAMES, labels)
    np.testing.assert_allclose(actual, [expected[0], 0, expected[1]], rtol=1e-7)


def test_factors_are_taken_by_name() -> None:
    actual = objective.of_classes({"blue": 3.0, "red": 1.0, "green": 2.0}, NAMES, np.zeros(1, np.int64))
    assert actual.tolist() == [1, 2, 3]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", ["balanced", {"red": 0.0, "green": 2.0, "blue": 0.5}, None], ids=str)
def test_the_loss_equals_torchs_mean_over_the_global_batch(smoothing: float, weights: dict[str, float] | None) -> None:
    split = split_of(20, classes=3, seed=0)
    assert split.labels is not None
    chosen = objective.objective(COLORS, Training(class_weights=weights, label_smoothing_factor=smoothing), split, CPU)
    logits, labels = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)), torch.from_numpy(split.labels)
    by_class = None if weights is None else torch.from_numpy(objective.of_classes(weights, NAMES, split.labels))
    expected = F.cross_entropy(logits, labels, by_class, label_smoothing=smoothing)
    parts = [np.arange(7), np.arange(7, 20)]
    total = sum(chosen.losses(logits[part], labels[part]).sum() for part in parts)
    torch.testing.assert_close(total / chosen.divisor(np.arange(20)), expected)


def test_without_weights_a_batch_counts_its_rows() -> None:
    chosen = objective.objective(COLORS, Training(), split_of(5, classes=3, seed=0), CPU)
    assert (chosen.divisor(np.array([0, 3])), chosen.describe(NAMES)) == (2, {})


def test_a_batch_whose_weights_are_all_0_is_rejected_before_training() -> None:
    split = split_of(40, classes=3, seed=0)
    assert split.labels is not None
    ignoring = Training(class_weights={"red": 0.0, "green": 0.0, "blue": 1.0})
    chosen = objective.objective(COLORS, ignoring, split, CPU)
    of_twos = list(planner.global_batches(40, 2, 0, 20))
    first = next(step for step, batch in enumerate(of_twos) if not (split.labels[batch] == 2).any())
    with pytest.raises(Refused) as caught:
        objective.refuse_weightless(chosen, of_twos, NAMES)
    assert str(caught.value) == (
        f"--class_weights: all rows of step {first + 1} have weight 0 (red, green), and no loss is left: give these "
        "classes more, or raise --train_batch_size"
    )
    objective.refuse_weightless(chosen, planner.global_batches(40, 40, 0, 3), NAMES)


def test_of_many_classes_only_extreme_weights_are_logged() -> None:
    assert objective.in_words({"b": 2.0, "a": 0.5}) == "a 0.5, b 2"
    many = {f"class {i}": float(i) for i in range(77)}
    assert objective.in_words(many) == "class 0 0, class 1 1, ... class 75 75, class 76 76"
