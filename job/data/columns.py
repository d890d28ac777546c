"""Which columns hold the text and the label: given by name, or recognised by the names the field uses.

Recognition is by name only and refuses when in doubt. Guessing by order or type, as example scripts do, trains on the
wrong column without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from job.errors import Refused

PAIRS = (
    ("sentence1", "sentence2"),
    ("question1", "question2"),
    ("premise", "hypothesis"),
    ("question", "sentence"),
    ("text", "text_pair"),
)
TEXTS = ("text", "sentence", "review", "content", "document", "comment", "message", "utterance", "body")
LABELS = ("label", "labels", "category", "class", "target", "intent", "sentiment")


@dataclass(frozen=True)
class Columns:
    """Names of the columns used: one or two of text, and the label's (None: there is none)."""

    text: tuple[str, ...]
    label: str | None

    @property
    def all(self) -> tuple[str, ...]:
        return self.text if self.label is None else (*self.text, self.label)


def choose(
    there: Sequence[str], text: Sequence[str], label: str | None, origin: str, label_optional: bool = False
) -> Columns:
    """The columns of the table `origin` to use.

    Args:
        there: the table's columns.
        text: the user's --text_column_names; empty: recognise.
        label: the user's --label_column_name; None: recognise.
        label_optional: where no column has a usual label name, there is none; one that is named must be there.

    Raises:
        Refused: a column is not there, or none or more than one can be meant; with the list of those there are.
    """
    check_count(text)
    for name in (*text, *([label] if label else [])):
        if name not in there:
            raise Refused(f"{origin} has no column {name}: it has {_listed(there)}")
    chosen = tuple(text) or _recognised_text(there, origin)
    columns = Columns(chosen, label or _recognised_label(there, chosen, origin, label_optional))
    for name in columns.all:
        if columns.all.count(name) > 1:
            raise Refused(f"column {name} is named twice among --text_column_names and --label_column_name")
        if list(there).count(name) > 1:
            raise Refused(f"{origin} has {list(there).count(name)} columns named {name}: rename all but one")
    return columns


def check_count(text: Sequence[str]) -> None:
    """Refused if more columns of text are named than a model can read apart."""
    if len(text) > 2:
        raise Refused(f"--text_column_names takes one column, or two for sentence pairs, not {len(text)}")


def _recognised_text(there: Sequence[str], origin: str) -> tuple[str, ...]:
    pair = next((pair for pair in PAIRS if set(pair) <= set(there)), None)
    if pair:
        return pair
    found = [name for name in there if name.lower() in TEXTS]
    if len(found) == 1:
        return (found[0],)
    why = f"more than one column may be the text ({', '.join(found)})" if found else "no column has a usual text name"
    raise Refused(f"{origin}: {why}; name it with --text_column_names: it has {_listed(there)}")


def _recognised_label(there: Sequence[str], text: Sequence[str], origin: str, optional: bool) -> str | None:
    found = [name for name in there if name.lower() in LABELS and name not in text]
    if optional and not found:
        return None
    if len(found) == 1:
        return found[0]
    why = f"more than one column may be the label ({', '.join(found)})" if found else "no column has a usual label name"
    raise Refused(f"{origin}: {why}; name it with --label_column_name: it has {_listed(there)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names)) or "no columns"
