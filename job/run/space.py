"""The search space of a sweep: for each setting a range of numbers or a list of values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; integers if both are integers."""

    low: float
    high: float
    log: bool = False
    """Whether values are sampled on a logarithmic scale."""

    def __str__(self) -> str:
        return f"{self.low}..{self.high}{':log' if self.log else ''}"


@dataclass(frozen=True)
class Choices:
    """A list of values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.values))


Space = Mapping[str, Range | Choices]
"""Name of a setting -> its possible values."""


def as_json(space: Space) -> dict[str, Any]:
    """`space` as JSON values."""
    return {name: asdict(entry) for name, entry in space.items()}


def from_json(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Range | Choices]:
    """The inverse of `as_json`."""
    return {
        name: Choices(tuple(entry["values"])) if "values" in entry else Range(**entry) for name, entry in values.items()
    }
