"""Which labels are numbers: strictly, as the job parses them, and loosely, as a person would read them."""

from __future__ import annotations

import math
import re
from typing import Any

DECIMAL = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
"""3.5, 4 and -1e3; but not 05, nan or 1_000, which float() takes too."""
WHOLE = re.compile(r"0|[+-]?[1-9][0-9]{0,4299}")
"""5, +5 and -5; Python converts no more than 4300 digits."""
LOOSE = re.compile(
    r"(?P<currency>[$€£¥₩₹])?\s*"
    r"(?P<number>[+\N{MINUS SIGN}-]?(0|[1-9][0-9]{0,2}([\s,'][0-9]{3})+|[1-9][0-9]*)(?P<fraction>[.,][0-9]+)?)\s*"
    r"(?P<unit>[%‰°$€£¥₩₹]|[^\W\d_]{1,4})?"
)
"""A number with a decimal comma, separated thousands or a unit: 3,5; 1 000; 12.5 %; $3; 2.5 kg."""


def parse_decimal(text: str) -> float | None:
    """The number that a text contains, ignoring surrounding blanks; None if it is not a number."""
    return float(text) if DECIMAL.fullmatch(text.strip()) else None


def as_number(value: Any, untyped: bool) -> float | None:
    """The number that a label is, infinite beyond floats; text is one only where the format knows no types."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return parse_decimal(value) if untyped and isinstance(value, str) else None


def parse_whole(value: int | str) -> int | None:
    """5, "5" and "+5" -> 5; "05", "5.0" and "five" are text."""
    if isinstance(value, int):
        return value
    return int(value) if WHOLE.fullmatch(value) else None


def is_loose_number(text: str) -> bool:
    """Whether a text is a number apart from blanks, a decimal comma, separated thousands or a unit.

    An integer followed by letters is not: 2D and 4G are names of classes.
    """
    if parse_decimal(text) is not None:
        return True
    found = LOOSE.fullmatch(text.strip())
    return found is not None and not ((found["unit"] or "").isalpha() and found["fraction"] is None)
