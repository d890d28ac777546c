"""What a search may choose from: a range of numbers or some values for each setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; of whole numbers where both are whole."""

    low: float
    high: float
    log: bool = False
    """Drawn evenly on a logarithmic scale."""

    def __str__(self) -> str:
        return f"{self.low}..{self.high}{':log' if self.log else ''}"


@dataclass(frozen=True)
class Choices:
    """Some values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return ",".join(map(str, self.values))


Space = Mapping[str, Range | Choices]
"""Name of a setting -> what it may be."""


def as_json(space: Space) -> dict[str, Any]:
    """`space` as plain values."""
    return {name: asdict(one) for name, one in space.items()}


def from_json(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Range | Choices]:
    """What `as_json` made."""
    return {name: Choices(tuple(one["values"])) if "values" in one else Range(**one) for name, one in values.items()}
