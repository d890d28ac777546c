"""Which columns contain the text and the label: given by the user, or recognised by common names.

Columns are recognised by name only, and an ambiguous table is rejected. Guessing by order or type, as example scripts
do, silently trains on the wrong column. Evaluation and test data use the columns of the training data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from job.errors import Refused

if TYPE_CHECKING:
    from job.config import Data

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
    """Names of the columns used: one or two text columns, and the label column (None: no label)."""

    text: tuple[str, ...]
    label: str | None

    @property
    def all(self) -> tuple[str, ...]:
        return self.text if self.label is None else (*self.text, self.label)


@dataclass(frozen=True)
class Request:
    """The columns requested of a split.

    Attributes:
        text: names of the text columns; (): recognise them.
        label: name of the label column; None: recognise it.
        label_required: whether the label column must exist.
        has_label: False: no column is the label, regardless of names (--no_label).
        as_trained: whether the names come from the training data and not from the user.
    """

    text: tuple[str, ...] = ()
    label: str | None = None
    label_required: bool = True
    has_label: bool = True
    as_trained: bool = False


def request(data: Data, split: str, trained: Columns | None = None) -> Request:
    """The columns requested of `split` ("train", "validation" or "test"); `trained`: those of the training data."""
    named = data.label_column_name
    is_test = split == "test"
    return Request(
        text=tuple(data.text_column_names) or (trained.text if trained else ()),
        label=named or (trained.label if trained else None),
        label_required=named is not None or not is_test,
        has_label=not (is_test and data.no_label),
        as_trained=trained is not None,
    )


def choose(there: Sequence[str], asked: Request, origin: str) -> Columns:
    """The columns to use of the table `origin`, which has the columns `there`.

    Raises:
        Refused: a column is missing, not recognised or ambiguous; the message lists the columns of the table.
    """
    check_count(asked.text)
    like = ", as in the training data" if asked.as_trained else ""
    for name in asked.text:
        if name not in there:
            raise Refused(f"{origin} has no column {name}{like}; its columns: {_listed(there)}")
    text = asked.text or _recognised_text(there, origin)
    columns = Columns(text, _label(there, asked, text, origin))
    for name in columns.all:
        if columns.all.count(name) > 1:
            raise Refused(f"column {name} is given twice in --text_column_names and --label_column_name")
    refuse_repeated(there, columns.all, origin)
    return columns


def refuse_other_choice(there: Sequence[str], asked: Request, chosen: Columns, origin: str, first: str) -> None:
    """Refused if columns that `first`, a row or file, does not have would change the choice that was made for it.

    `there` are the columns of `origin`, a later row or file; their choice is ambiguous, or not `chosen`.
    """
    other = choose(there, asked, origin)
    if other.text != chosen.text:
        new = next(name for name in other.text if name not in chosen.text)
        raise Refused(f"{origin} has a column {new}, which {first} does not have: set --text_column_names to "
                      f"{' '.join(chosen.text)} to ignore it, or correct the rows without it")  # fmt: skip
    if other.label != chosen.label:
        raise Refused(f"{origin} has a column {other.label}, which {first} does not have: label every row, or add "
                      "--no_label")  # fmt: skip


def refuse_repeated(there: Sequence[str], names: Sequence[str], origin: str) -> None:
    """Refused if the table `origin`, which has the columns `there`, has one of `names` more than once."""
    twice = next((name for name in names if list(there).count(name) > 1), None)
    if twice is not None:
        raise Refused(f"{origin} has {list(there).count(twice)} columns named {twice!r}: rename all but one")


def notes(there: Sequence[str], asked: Request, chosen: Columns, origin: str) -> list[str]:
    """Consequences of this choice that a user may not expect."""
    lines = []
    if asked.as_trained:
        pair = next((pair for pair in _pairs(there) if chosen.text == pair[:1]), None)
        if pair:
            lines.append(f"{origin}: column {pair[1]} is ignored, because the training data has only {chosen.text[0]}")
        if asked.has_label and asked.label and chosen.label is None:
            lines.append(f"{origin}: no column {asked.label}, so it is predicted but not scored")
    return lines


def _label(there: Sequence[str], asked: Request, text: Sequence[str], origin: str) -> str | None:
    if not asked.has_label:
        return None
    if asked.label is None:
        return _recognised_label(there, text, origin, not asked.label_required)
    if asked.label in there:
        return asked.label
    if asked.label_required:
        like = ", as in the training data" if asked.as_trained else ""
        raise Refused(f"{origin} has no column {asked.label}{like}; its columns: {_listed(there)}")
    return None


def check_count(text: Sequence[str]) -> None:
    """Refused for more than two text columns, which models do not take."""
    if len(text) > 2:
        raise Refused(f"--text_column_names takes one column, or two for sentence pairs, not {len(text)}")


def _pairs(there: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The usual pairs that a table has, as it writes their names; not those whose names it writes in several ways."""
    for pair in PAIRS:
        first, second = ([name for name in dict.fromkeys(there) if name.lower() == usual] for usual in pair)
        if len(first) == len(second) == 1:
            yield first[0], second[0]


def _recognised_text(there: Sequence[str], origin: str) -> tuple[str, ...]:
    pair = next(_pairs(there), None)
    if pair:
        return pair
    found = [name for name in there if name.lower() in TEXTS]
    if len(found) == 1:
        return (found[0],)
    why = f"ambiguous text columns ({', '.join(found)})" if found else "no text column recognised"
    raise Refused(f"{origin}: {why}: set --text_column_names; its columns: {_listed(there)}")


def _recognised_label(there: Sequence[str], text: Sequence[str], origin: str, optional: bool) -> str | None:
    found = [name for name in there if name.lower() in LABELS and name not in text]
    if optional and not found:
        return None
    if len(found) == 1:
        return found[0]
    why = f"ambiguous label columns ({', '.join(found)})" if found else "no label column recognised"
    raise Refused(f"{origin}: {why}: set --label_column_name; its columns: {_listed(there)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(str, names)) or "none"
