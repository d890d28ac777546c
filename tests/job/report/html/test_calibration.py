"""Calibration by its definition, computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from job.report.html import calibration
from job.report.html.calibration import BINS


def test_the_expected_calibration_error_is_that_computed_by_hand() -> None:
    """Bins of a fifteenth. (0.6, 0.6667]: 0.62, 0.64, 0.66, one of them right; (0.9333, 1]: 0.95 and 1, both right.

    |1/3 - 0.64| * 3/5 + |1 - 0.975| * 2/5 = 0.184 + 0.01
    """
    found = calibration.reliability(np.array([0.62, 0.95, 0.64, 1.0, 0.66]), np.array([True, True, False, True, False]))
    assert found.counts.tolist() == [0] * 9 + [3] + [0] * 4 + [2]
    assert found.accuracy[[9, 14]].tolist() == pytest.approx([1 / 3, 1.0])
    assert found.confidence[[9, 14]].tolist() == pytest.approx([0.64, 0.975])
    assert found.expected_error == pytest.approx(0.194)
    assert found.overconfidence == pytest.approx((3 * 0.64 + 2 * 0.975) / 5 - 3 / 5)


def test_a_bin_is_open_at_its_lower_end() -> None:
    edges = np.array([0.0, 1 / BINS, 1.5 / BINS, 2 / BINS, 1.0])
    found = calibration.reliability(edges, np.ones(5, dtype=bool))
    assert (found.counts[0], found.counts[1], found.counts[BINS - 1]) == (2, 2, 1)


def test_a_calibrated_model_has_an_error_near_zero_and_one_that_is_too_sure_has_not() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(100_000)
    right = rng.random(100_000) < confidence
    assert calibration.reliability(confidence, right).expected_error < 0.01
    sure = calibration.reliability(confidence**0.5, right)
    assert sure.expected_error == pytest.approx(1 / 6, abs=0.01)  # the mean of sqrt(x) - x over 0..1
    assert sure.overconfidence == pytest.approx(sure.expected_error)
