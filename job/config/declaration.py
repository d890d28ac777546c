"""How a setting is declared: its default, its bounds, and whether it changes the result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

LARGEST = 2**53
"""Of any number: the libraries count in 64 bits and compute in float32, and fail on more in their own words."""


@dataclass(frozen=True)
class Bounds:
    """Bounds of a numeric setting; None: no bound but LARGEST."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def remedy(self, value: float) -> str | None:
        """What the number must be instead; None if `value` is within the bounds."""
        if isinstance(value, float) and not math.isfinite(value):
            return "a finite number"
        held = (
            (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )
        if not held:
            return str(self)
        return f"at most {LARGEST}" if value > LARGEST else None

    def __str__(self) -> str:
        named = {"above": self.above, "at least": self.at_least, "below": self.below, "at most": self.at_most}
        return " and ".join(f"{name} {bound:.10g}" for name, bound in named.items() if bound is not None)


def setting(default: Any, **bounds: float) -> Any:
    """A field that changes the result: a different value makes a different run. `bounds` are the fields of Bounds."""
    return _field(default, True, bounds)


def runtime_setting(default: Any, **bounds: float) -> Any:
    """A field that does not change the result, such as hardware or logging: a run can resume with a different value."""
    return _field(default, False, bounds)


def _field(default: Any, changes_result: bool, bounds: Mapping[str, float]) -> Any:
    metadata = {"changes_result": changes_result, "bounds": Bounds(**bounds) if bounds else None}
    return field(default=default, metadata=metadata)
