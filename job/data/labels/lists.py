"""Several labels per row: lists of classes, or lists with a 0 or 1 for each class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from job.config.tasks import MULTI_LABEL, Kind, Task
from job.data.labels.class_names import class_name, named_element, notes_on_names, ordered
from job.data.labels.column import LabelColumn
from job.data.labels.reading import Reading
from job.data.labels.source_labels import few, labels_of, not_a_list, place_of, shown
from job.data.sources import Source
from job.errors import Refused


def read_lists(train: Source, asked: Kind | None) -> Reading:
    labels = labels_of(train)
    if asked is not None and asked != MULTI_LABEL:
        raise Refused(f"{train.origin}: column {train.columns.label} contains lists, but --problem_type "
                      f"{asked.problem_type} needs one label per row: use {MULTI_LABEL.problem_type}")  # fmt: skip
    for value in labels.values:
        if not isinstance(value, list):
            raise not_a_list(value, train)
    width = indicator_width(labels)
    if width:
        names = declared_indicators(labels, width) or numbered(width)
        return Reading(Task(MULTI_LABEL, names), indicators=names, notes=(indicator_note(names),))
    refuse_uneven_indicators(train)
    parts = {class_name(named_element(part, train), train, value) for value in labels.values for part in value}
    names = labels.declared or ordered(parts)
    notes = notes_on_names(names, train)
    if {part for value in labels.values for part in value} == {"0", "1"}:
        notes.append("the labels are lists of the texts 0 and 1, read as the classes that apply; for a 0 or 1 for each "
                     "class, write them as numbers")  # fmt: skip
    return Reading(Task(MULTI_LABEL, names), notes=tuple(notes))


def indicator_width(labels: LabelColumn) -> int:
    """The common length of the lists, if it is at least two and they contain only 0 and 1; else 0.

    Lists of numbers of declared classes are indicators only if they have an entry for each class or repeat one.
    """
    lists = [value for value in labels.values if isinstance(value, list)]
    widths = {len(value) for value in lists}
    if len(lists) < len(labels.values) or len(widths) != 1 or min(widths) < 2 or not _hold_only_0_and_1(lists):
        return 0
    width = widths.pop()
    repeats = any(len(set(value)) < width for value in lists)
    return width if repeats or not labels.declared or len(labels.declared) == width else 0


def refuse_uneven_indicators(source: Source) -> None:
    """Refused for lists of 0 and 1 of different lengths, if one repeats a value, which a list of classes does not."""
    labels = labels_of(source)
    lists = [value for value in labels.values if isinstance(value, list)]
    if len({len(value) for value in lists}) < 2 or not _hold_only_0_and_1(lists):
        return
    repeating = next((value for value in lists if len(set(value)) < len(value)), None)
    if repeating is not None:
        odd = next(value for value in lists if len(value) != len(repeating))
        raise Refused(f"{place_of(odd, source)}: label {shown(odd)} has another length than {shown(repeating)}: write "
                      "a 0 or 1 for each class, or the names of the classes that apply as text")  # fmt: skip


def refuse_repeats(source: Source, names: Sequence[str]) -> None:
    """Refused where lists of the classes `names` are expected and one repeats 0 or 1, as indicators do."""
    lists = [value for value in labels_of(source).values if isinstance(value, list)]
    repeating = next((value for value in lists if _hold_only_0_and_1([value]) and len(set(value)) < len(value)), None)
    if repeating is not None:
        raise Refused(f"{place_of(repeating, source)}: label {shown(repeating)} repeats a class: write the classes "
                      f"that apply ({few(names)}), each once, as text")  # fmt: skip


def _hold_only_0_and_1(lists: Sequence[Sequence[Any]]) -> bool:
    return all(isinstance(part, bool | int | float) and part in (0, 1) for value in lists for part in value)


def declared_indicators(labels: LabelColumn, width: int) -> tuple[str, ...]:
    """The declared class of each 0 or 1; () if the dataset does not name them."""
    return labels.declared if len(labels.declared) == width else ()


def numbered(width: int) -> tuple[str, ...]:
    """The classes of indicators that no dataset names: "0", "1", ..."""
    return tuple(map(str, range(width)))


def indicator_note(names: Sequence[str]) -> str:
    return (
        f"the labels are lists of {len(names)} numbers, read as 0 or 1 for each of the classes {few(names)}; "
        "to list the classes that apply instead, write them as text"
    )
