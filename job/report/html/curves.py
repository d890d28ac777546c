"""Curves over training steps, downsampled for display."""

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
    """The curve of a number, from the records that have it."""
    points = [(record["step"], record[name]) for record in records if isinstance(record.get(name), int | float)]
    steps, values = zip(*points, strict=True) if points else ((), ())
    return Curve(np.array(steps, np.int64), np.array(values, np.float64))


def thinned(full: Curve) -> Curve:
    """Downsample to at most MOST_POINTS points: the minimum and maximum of each interval, so that no spike is lost."""
    if len(full) <= MOST_POINTS:
        return full
    intervals = np.array_split(np.arange(len(full)), MOST_POINTS // 2)
    extremes = ((points[full.values[points].argmin()], points[full.values[points].argmax()]) for points in intervals)
    keep = np.unique(np.array(list(extremes)).ravel())
    return Curve(full.steps[keep], full.values[keep])
