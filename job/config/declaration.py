"""How a setting is declared: its default, its bounds, and whether it changes the result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Bounds:
    """Bounds of a numeric setting, which must also be finite; None: no bound."""

    above: float | None = None
    at_least: float | None = None
    below: float | None = None
    at_most: float | None = None

    def hold(self, value: float) -> bool:
        """Whether `value` is finite and within the bounds."""
        return (
            math.isfinite(value)
            and (self.above is None or value > self.above)
            and (self.at_least is None or value >= self.at_least)
            and (self.below is None or value < self.below)
            and (self.at_most is None or value <= self.at_most)
        )

    def __str__(self) -> str:
        named = {"above": self.above, "at least": self.at_least, "below": self.below, "at most": self.at_most}
        return " and ".join(f"{name} {bound:g}" for name, bound in named.items() if bound is not None)


def setting(default: Any, **bounds: float) -> Any:
    """A field that changes the result: a different value makes a different run. `bounds` are the fields of Bounds."""
    return _field(default, True, bounds)


def runtime_setting(default: Any, **bounds: float) -> Any:
    """A field that does not change the result, such as hardware or logging: a run can resume with a different value."""
    return _field(default, False, bounds)


def _field(default: Any, changes_result: bool, bounds: Mapping[str, float]) -> Any:
    metadata = {"changes_result": changes_result, "bounds": Bounds(**bounds) if bounds else None}
    return field(default=default, metadata=metadata)
