"""The bench's data sets, made of the embedded docstrings: nothing is fetched and every machine has the same text.

Lengths in MiniLM tokens, special tokens included: long-tailed text, cut at 512, has a mean of 195 and a median of 125;
the first sentences have a mean of 17 and a median of 14, as the customer requests of BANKING77 (16 and 13); the pairs
have a mean of 54, as MRPC's (53).
"""

from __future__ import annotations

import hashlib
import json
import random
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from job.data import demo
from tests.bench import plan

Row = Mapping[str, str]
Rows = dict[str, list[Row]]

LONGEST_SENTENCE = 135  # characters: a batch of 32 is then as wide as one of BANKING77, 47 tokens
SENTENCE = range(5, 24)  # words of one side of a pair


def read(name: str, cache: Path, rows: int | None, evaluation_rows: int) -> Rows:
    """The rows of a workload: {"train": ..., "validation": ...}, each a list of {column: text}."""
    make = {plan.SHORT: first_sentences, plan.PAIRS: pairs}.get(name, as_they_are)
    files = demo.files(cache)
    read = {split: [json.loads(line) for line in path.open(encoding="utf-8")] for split, path in files.items()}
    return {
        "train": list(make(read["train"]))[:rows],
        "validation": list(make(read["validation"]))[:evaluation_rows],
    }


def as_they_are(rows: Sequence[Row]) -> Iterable[Row]:
    return rows


def first_sentences(rows: Sequence[Row]) -> Iterable[Row]:
    """Which library is the first sentence from?"""
    for row in rows:
        sentence = row["text"].split(". ")[0]
        yield {"text": textwrap.shorten(sentence, LONGEST_SENTENCE, placeholder="") or sentence, "label": row["label"]}


def pairs(rows: Sequence[Row]) -> Iterable[Row]:
    """Does the second text continue the first, or is it from another docstring?"""
    long = [row["text"].split() for row in rows]
    long = [words for words in long if len(words) >= 2 * SENTENCE.stop]
    for number, words in enumerate(long):
        draw = random.Random(hashlib.sha256(" ".join(words).encode()).digest())
        first, second, is_continued = draw.choice(SENTENCE), draw.choice(SENTENCE), draw.random() < 0.5
        other = words if is_continued else long[(number + draw.randrange(1, len(long))) % len(long)]
        yield {
            "sentence1": " ".join(words[:first]),
            "sentence2": " ".join(other[first : first + second]),
            "label": "continued" if is_continued else "other",
        }


def write(rows: Rows, folder: Path) -> dict[str, Path]:
    """Write each split as JSON lines; returns the files."""
    paths = {split: folder / f"{split}.jsonl" for split in rows}
    for split, path in paths.items():
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[split]), encoding="utf-8")
    return paths
