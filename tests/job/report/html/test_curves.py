"""Curves are thinned without losing a spike."""

from __future__ import annotations

import numpy as np

from job.report.html import curves


def test_a_long_curve_keeps_its_highest_and_lowest_point() -> None:
    records = [{"step": step, "loss": 1 / (step + 1)} for step in range(50_000)]
    records[31_234]["loss"], records[7]["loss"] = 9.0, -4.0
    thin = curves.thinned(curves.curve(records, "loss"))
    assert len(thin) <= curves.MOST_POINTS
    assert (thin.values.max(), thin.values.min()) == (9.0, -4.0)
    assert thin.steps[thin.values.argmax()] == 31_234
    assert (np.diff(thin.steps) > 0).all()


def test_what_is_no_number_is_left_out() -> None:
    found = curves.curve([{"step": 1, "loss": None}, {"step": 2}, {"step": 3, "loss": 0.5}], "loss")
    assert (found.steps.tolist(), found.values.tolist()) == ([3], [0.5])
