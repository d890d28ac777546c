"""Statistics of the data, logged before training: sizes, classes, truncation, duplicates, overlap of the splits.

Duplicates are found by a 64-bit hash per row, so memory grows by bytes per row, regardless of the length of the texts.
A hash collision would count two texts as one: for a million rows the probability of any collision is below one in ten
million, and a count would be off by one. Comparing the texts themselves would need all of them in memory. Duplicates
are byte-identical; near-duplicates (case, spaces) are not detected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest

PERCENTILES = (50, 90, 99)
OVERLAPS = {"validation": "overlap", "test": "test_overlap"}
ADJECTIVES = {"train": "training", "validation": "evaluation", "test": "test"}

TRUNCATED_NOTED = 0.05  # truncation is noted if more than this share of rows is truncated
UNEVEN = 3  # class imbalance is noted if the largest class is more than this many times the smallest
LISTED_CLASSES = 10
LISTED_ENDS = 5
LISTED_MISSING = 5
LONGEST_NAME = 40


@dataclass(frozen=True)
class Part:
    """One split as it will be used: row i of each member is the same example.

    Attributes:
        texts: string column, or two for sentence pairs; read row by row, so it may be memory-mapped.
        lengths: int32[n], tokens of each example after truncation.
        truncated: bool[n], whether the example was truncated.
        labels: int64[n] class numbers; float64[n] for regression; bool or int8[n, C] for multi-label; None: no labels.
        rows: int64[n], the rows of `texts` that belong to the split; None: all.
    """

    texts: pa.ChunkedArray | Sequence[pa.ChunkedArray]
    lengths: np.ndarray
    truncated: np.ndarray
    labels: np.ndarray | None
    rows: np.ndarray | None = None


# ---------------------------------------------------------------------------------------------------------------------
# Counting


def describe(parts: Mapping[str, Part], class_names: Sequence[str], max_length: int) -> dict[str, Any]:
    """Statistics of the splits of a run, as JSON values.

    Args:
        parts: any of "train", "validation" and "test".
        class_names: in class order; not used for regression.
        max_length: examples are truncated to this many tokens.

    Returns:
        "max_seq_length"; a mapping for each split, under its name; with a training split also "overlap" and
        "test_overlap": rows of "validation" and "test" whose text also occurs in "train". A split has

        rows         number of rows
        classes      {name: rows}; in a multi-label task a row counts in each of its classes
        labels_per_row   mean; only for multi-label
        labels       {"mean", "sd" (of the population), "min", "max"}; instead of classes, for regression
        tokens       {"mean", "p50", "p90", "p99", "max"}; p90: the fewest tokens that 90 % of the rows do not exceed
        truncated    share of the rows, 0..1
        duplicates   rows that repeat the text of an earlier row of the split
        conflicting  rows whose text occurs in the split with a different label, too

        A split without labels has no classes, labels or conflicting.

    Raises:
        ValueError: members of a part differ in their number of rows, or a class number has no name.
    """
    hashes = {name: _hashes(part) for name, part in parts.items()}
    description: dict[str, Any] = {"max_seq_length": max_length}
    for name, part in parts.items():
        description[name] = _split(part, hashes[name], class_names)
        if name in OVERLAPS and "train" in parts:
            description[OVERLAPS[name]] = _count_in(hashes[name], hashes["train"])
    return description


def _count_in(values: np.ndarray, members: np.ndarray) -> int:
    """How many of `values` are in `members`; np.isin would take four times the memory of `members`."""
    if not len(members):
        return 0
    ordered = np.sort(members)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    return int((ordered[at] == values).sum())


def _hashes(part: Part) -> np.ndarray:
    """uint64[n], equal for rows with equal text. Each column has its own seed: a|bc, ab|c and bc|a all differ."""
    columns = [part.texts] if isinstance(part.texts, pa.ChunkedArray) else part.texts
    size = len(part.lengths)
    texts = columns if part.rows is None else [part.rows]
    for member in (*texts, part.truncated, *([] if part.labels is None else [part.labels])):
        if len(member) != size:
            raise ValueError(f"a split has {size} lengths, but {len(member)} rows of text, labels or truncation")
    total = np.zeros(len(columns[0]), dtype=np.uint64)
    for seed, column in enumerate(columns):
        start = 0
        for chunk in column.chunks:
            # Buffers are views of the table: no text is copied.
            digests = (xxh3_64_intdigest(text.as_buffer() or b"", seed) for text in chunk)
            total[start : start + len(chunk)] += np.fromiter(digests, np.uint64, len(chunk))
            start += len(chunk)
    return total if part.rows is None else total[part.rows]


def _split(part: Part, hashes: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    order = np.argsort(hashes)  # rows with equal text become neighbours
    begins = _begins(hashes[order])
    labels = None if part.labels is None else part.labels[order]
    del order  # eight megabytes for a million rows
    split = {
        "rows": len(hashes),
        **({} if part.labels is None else _labels(part.labels, class_names)),
        "tokens": _tokens(part.lengths),
        "truncated": float(part.truncated.mean()) if len(hashes) else 0.0,
        "duplicates": int(len(hashes) - begins.sum()),
    }
    if labels is not None:
        split["conflicting"] = _conflicting(labels, begins)
    return split


def _begins(ordered: np.ndarray) -> np.ndarray:
    """bool[n], whether a value differs from the previous one."""
    begins = np.ones(len(ordered), dtype=bool)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return begins


def _labels(labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    if labels.ndim == 2:
        counts = labels.sum(axis=0, dtype=np.int64)
        return {"classes": _named(counts, class_names), "labels_per_row": float(counts.sum() / max(1, len(labels)))}
    if labels.dtype.kind == "f":
        values = labels if len(labels) else np.zeros(1)
        numbers = {"mean": values.mean(), "sd": values.std(), "min": values.min(), "max": values.max()}
        return {"labels": {name: float(value) for name, value in numbers.items()}}
    return {"classes": _named(np.bincount(labels, minlength=len(class_names)), class_names)}


def _named(counts: np.ndarray, class_names: Sequence[str]) -> dict[str, int]:
    return dict(zip(class_names, counts.tolist(), strict=True))


def _tokens(lengths: np.ndarray) -> dict[str, float | int]:
    values = lengths if len(lengths) else np.zeros(1, dtype=np.int32)
    # Percentiles are lengths that occur, not interpolated values.
    percentiles = np.percentile(values, PERCENTILES, method="inverted_cdf").tolist()
    named = {f"p{percent}": int(value) for percent, value in zip(PERCENTILES, percentiles, strict=True)}
    return {"mean": float(values.mean()), **named, "max": int(values.max())}


def _conflicting(labels: np.ndarray, begins: np.ndarray) -> int:
    """Number of rows in groups of equal text whose labels are not all the same.

    Args:
        labels: as in Part, sorted so that the rows of a group are neighbours.
        begins: bool[n], whether a row is the first of its group.
    """
    differs = labels[1:] != labels[:-1]
    if differs.ndim == 2:
        differs = differs.any(axis=1)
    starts = np.append(np.flatnonzero(begins), len(begins))
    mixed = np.unique(np.searchsorted(starts, 1 + np.flatnonzero(differs & ~begins[1:]), side="right"))
    return int((starts[mixed] - starts[mixed - 1]).sum())


# ---------------------------------------------------------------------------------------------------------------------
# Lines of text


def lines(description: Mapping[str, Any]) -> list[str]:
    """The result of `describe` as lines for the log: one per split, the classes, and notes."""
    splits = {name: description[name] for name in ADJECTIVES if name in description}
    # Without a training split, the evaluation split shows the classes.
    labelled: Mapping[str, Any] = next((s for s in splits.values() if "classes" in s or "labels" in s), {})
    rows = [*_split_lines(splits), *_label_lines(labelled)]
    rows += [("note", note) for note in description.get("notes", ())]
    rows += [("note", note) for note in _notes(description, splits, labelled)]
    width = max((len(label) for label, _ in rows), default=0)
    return [f"{label:{width}}  {text}" for label, text in rows]


def _split_lines(splits: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    def width(values: Sequence[int]) -> int:
        return max(len(f"{value:,}") for value in values)

    if not splits:
        return
    rows = width([split["rows"] for split in splits.values()])
    tokens = {key: width([split["tokens"][key] for split in splits.values()]) for key in ("p50", "p90", "max")}
    for name, split in splits.items():
        lengths = ", ".join(f"{key} {split['tokens'][key]:{size},}" for key, size in tokens.items())
        yield name, f"{split['rows']:{rows},} rows, tokens {lengths}, truncated {100 * split['truncated']:.1f} %"


def _label_lines(split: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "labels" in split:
        mean, sd, least, most = (f"{split['labels'][key]:.4g}" for key in ("mean", "sd", "min", "max"))
        yield "labels", f"mean {mean}, sd {sd}, {least} to {most}"
    elif "classes" in split:
        counts = split["classes"]
        several = f"; {split['labels_per_row']:.2f} per row" if "labels_per_row" in split else ""
        if len(counts) <= LISTED_CLASSES:
            yield "classes", _counted(counts.items()) + several
            return
        ordered = sorted(counts.items(), key=lambda item: -item[1])
        yield "classes", f"{len(counts)}{several}"
        yield "  largest", _counted(ordered[:LISTED_ENDS])
        yield "  smallest", _counted(ordered[-LISTED_ENDS:])


def _notes(description: Mapping[str, Any], splits: Mapping[str, Any], labelled: Mapping[str, Any]) -> Iterator[str]:
    if "train" in splits:
        yield from _training_notes(splits["train"])
    yield from _uneven(labelled, splits.get("validation", {}))
    if repeated := _rows(splits, "duplicates"):
        yield f"{repeated} with the same text as an earlier row of the split: counted twice"
    if conflicting := _rows(splits, "conflicting"):
        yield f"{conflicting} with a text that also has a different label: not all can be predicted correctly"
    for name, key in OVERLAPS.items():
        if description.get(key):
            yield f"{_count(description[key], name)} with a text of the training data: scores will be optimistic"
    for name, split in splits.items():
        if split["truncated"] > TRUNCATED_NOTED:
            share = f"{100 * split['truncated']:.1f} % of the {ADJECTIVES[name]} rows"
            limit = description["max_seq_length"]
            yield f"{share} are truncated to {limit} tokens: raise --max_seq_length if the model allows it"


def _training_notes(train: Mapping[str, Any]) -> Iterator[str]:
    if train["rows"] < 2:
        yield f"only {_count(train['rows'], 'train')}: too few to learn from"
    missing = [_short(name) for name, count in train.get("classes", {}).items() if not count]
    if missing:
        more = f" and {len(missing) - LISTED_MISSING} more" if len(missing) > LISTED_MISSING else ""
        yield f"no training rows of class {', '.join(missing[:LISTED_MISSING])}{more}: it cannot be learned"


def _uneven(split: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Iterator[str]:
    """A note on imbalanced classes of `split`, with the accuracy of the majority class on `evaluation`, if labelled."""
    counts = {name: count for name, count in split.get("classes", {}).items() if count}
    if not counts:
        return
    largest, smallest = max(counts, key=counts.__getitem__), min(counts, key=counts.__getitem__)
    if counts[largest] <= UNEVEN * counts[smallest]:
        return
    sizes = (
        f"imbalanced classes, {_counted([(largest, counts[largest])])} to {_counted([(smallest, counts[smallest])])}"
    )
    if "labels_per_row" in split:
        yield f"{sizes} rows: rare classes barely affect micro-averaged scores; look at f1_macro"
        return
    measured = evaluation if evaluation.get("classes") and evaluation["rows"] else split
    accuracy = measured["classes"][largest] / measured["rows"]
    yield f"{sizes} rows: always predicting {_short(largest)} gives accuracy {accuracy:.2f}; look at f1_macro"


def _rows(splits: Mapping[str, Any], key: str) -> str:
    """`12 training rows, 1 test row`, for the splits where the count is not 0; else empty."""
    return ", ".join(_count(split[key], name) for name, split in splits.items() if split.get(key))


def _count(number: int, split: str) -> str:
    return f"{number:,} {ADJECTIVES[split]} row{'' if number == 1 else 's'}"


def _counted(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{_short(name)} {count:,}" for name, count in counts)


def _short(name: str) -> str:
    """A class name shortened to fit into a line: it may be any text."""
    name = " ".join(name.split())
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 3] + "..."
