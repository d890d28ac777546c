"""Notes on suspicious class names: lists as text, several labels in a cell, missing values, near-identical names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

LIST = re.compile(r"\s*[\[({].*[\])}]\s*", re.DOTALL)
SEPARATORS = "|;,/+"
MISSING = frozenset(("na", "n/a", "#n/a", "nan", "null", "none", "nil", "missing", "unknown", "?", "-", "--", "."))
LONGEST_SHOWN = 40


def notes(names: Sequence[str]) -> Iterator[str]:
    """One line for each suspicion about these class names."""
    lists = [name for name in names if LIST.fullmatch(name)]
    if lists:
        yield (
            f"label {_shown(lists[0])} looks like a list but is read as one class; "
            "for several labels per row, use lists in jsonl or parquet"
        )
    joined = next(_joined(names), None) if not lists else None
    if joined:
        yield (
            f"label {_shown(joined)} looks like several labels but is read as one class; "
            "for several labels per row, use lists in jsonl or parquet"
        )
    missing = [name for name in names if name.strip().casefold() in MISSING]
    if missing:
        yield f"label {_shown(missing[0])} looks like a missing value but is read as a class"
    for one, other in _near_identical(names):
        yield f"the classes {_shown(one)} and {_shown(other)} differ only in case or blanks; they are two classes"


def _joined(names: Iterable[str]) -> Iterator[str]:
    """Names that join parts with a separator: any parts for | and ;, parts that are themselves classes for others."""
    there = set(names)
    for name in names:
        for separator in SEPARATORS:
            parts = [part.strip() for part in name.split(separator)]
            if len(parts) > 1 and all(parts) and (separator in "|;" or there.issuperset(parts)):
                yield name


def _near_identical(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    first: dict[str, str] = {}
    for name in names:
        form = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
        if form in first:
            yield first[form], name
        first.setdefault(form, name)


def _shown(name: str) -> str:
    return repr(name if len(name) <= LONGEST_SHOWN else name[: LONGEST_SHOWN - 3] + "...")
