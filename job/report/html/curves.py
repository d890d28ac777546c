"""Curves over the steps of training, thinned to what a picture can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_POINTS = 400


@dataclass(frozen=True)
class Curve:
    """`values` (float64[n], finite) at `steps` (int64[n], ascending)."""

    steps: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.steps)


def curve(records: Sequence[Mapping[str, Any]], name: str) -> Curve:
    """A number of the records that have it."""
    points = [(record["step"], record[name]) for record in records if isinstance(record.get(name), int | float)]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return Curve(np.array(steps, np.int64), np.array(values, np.float64))


def thinned(full: Curve) -> Curve:
    """At most MOST_POINTS points: of each stretch the lowest and the highest, so that no spike is lost."""
    if len(full) <= MOST_POINTS:
        return full
    stretches = np.array_split(np.arange(len(full)), MOST_POINTS // 2)
    ends = ((at[full.values[at].argmin()], at[full.values[at].argmax()]) for at in stretches)
    keep = np.unique(np.array(list(ends)).ravel())
    return Curve(full.steps[keep], full.values[keep])
