"""Which columns hold the text and the label: given by name, or recognised by the names the field uses.

Recognition is by name only and is refused when in doubt. Guessing by order or type, as example scripts do, trains on
the wrong column silently. Evaluation and test data have the columns that the training data had.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    """Names of the columns used: one or two of text, and the label's (None: there is none)."""

    text: tuple[str, ...]
    label: str | None

    @property
    def all(self) -> tuple[str, ...]:
        return self.text if self.label is None else (*self.text, self.label)


@dataclass(frozen=True)
class Request:
    """The columns that are wanted of a split.

    Attributes:
        text: their names; (): recognise.
        label: its name; None: recognise.
        label_required: whether it must be there.
        has_label: False: there is none, whatever the columns are called (--no_label).
        as_trained: whether the names are those of the training data and not the user's.
    """

    text: tuple[str, ...] = ()
    label: str | None = None
    label_required: bool = True
    has_label: bool = True
    as_trained: bool = False


def request(data: Data, split: str, trained: Columns | None = None) -> Request:
    """What is asked of `split` ("train", "validation" or "test"); `trained`: the training data's columns."""
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
    """The columns of the table `origin` to use; `there` are those it has.

    Raises:
        Refused: a column is not there, or none or more than one can be meant; with the list of those there are.
    """
    check_count(asked.text)
    like = ", which the training data has" if asked.as_trained else ""
    for name in asked.text:
        if name not in there:
            raise Refused(f"{origin} has no column {name}{like}: it has {_listed(there)}")
    text = asked.text or _recognised_text(there, origin)
    columns = Columns(text, _label(there, asked, text, origin))
    for name in columns.all:
        if columns.all.count(name) > 1:
            raise Refused(f"column {name} is named twice among --text_column_names and --label_column_name")
        if list(there).count(name) > 1:
            raise Refused(f"{origin} has {list(there).count(name)} columns named {name}: rename all but one")
    return columns


def notes(there: Sequence[str], asked: Request, chosen: Columns, origin: str) -> list[str]:
    """What a user may not expect of this choice."""
    found = []
    if asked.as_trained:
        pair = next((pair for pair in PAIRS if set(pair) <= set(there) and chosen.text == pair[:1]), None)
        if pair:
            found.append(f"{origin}: column {pair[1]} is not read, the training data has {chosen.text[0]} only")
        if asked.has_label and asked.label and chosen.label is None:
            found.append(f"{origin}: no column {asked.label}, so it is predicted and not scored")
    return found


def _label(there: Sequence[str], asked: Request, text: Sequence[str], origin: str) -> str | None:
    if not asked.has_label:
        return None
    if asked.label is None:
        return _recognised_label(there, text, origin, not asked.label_required)
    if asked.label in there:
        return asked.label
    if asked.label_required:
        like = ", which the training data has" if asked.as_trained else ""
        raise Refused(f"{origin} has no column {asked.label}{like}: it has {_listed(there)}")
    return None


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
