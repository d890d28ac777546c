"""The data: sizes, classes, lengths, and duplicates and leaks found before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from job.report.html import drawing, lengths, plots
from job.report.html.blocks import Paragraph, Picture, Section, Table, numbers_from, percent, short
from job.report.html.run_files import RunFiles

SPLITS = {"train": "training", "validation": "evaluation", "test": "test"}
FOLDED_FROM = 12


def section(run: RunFiles) -> Section | None:
    """Statistics of the data; None if the run ended before they were computed."""
    description = run.data.get("description", {})
    splits = {name: description[name] for name in SPLITS if name in description}
    if not splits:
        return None
    notes = [Paragraph(f"Note: {note}.") for note in description.get("notes", ())]
    return Section("data", "Data", [_sizes(splits, description), *notes, *_classes(splits), *_lengths(run, splits)])


def _sizes(splits: Mapping[str, Any], description: Mapping[str, Any]) -> Table:
    columns = ["set", "rows", "tokens: median", "90 % up to", "longest", "truncated",
               "repeat an earlier text", "same text, other label", "text also in training"]  # fmt: skip
    leaks = {"train": None, "validation": description.get("overlap"), "test": description.get("test_overlap")}
    rows = [
        [SPLITS[name], f"{split['rows']:,}", *(f"{split['tokens'][key]:,}" for key in ("p50", "p90", "max")),
         percent(split["truncated"]),
         *(_count(number) for number in (split["duplicates"], split.get("conflicting"), leaks[name]))]
        for name, split in splits.items()
    ]  # fmt: skip
    return Table("The sets, with duplicates and leaks", columns, rows, numbers_from(1, columns))


def _count(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _classes(splits: Mapping[str, Any]) -> list[Table]:
    counted = {name: split["classes"] for name, split in splits.items() if split.get("classes")}
    if not counted:
        return []
    first = next(iter(counted.values()))
    columns = ["class", *(f"{SPLITS[name]} rows" for name in counted)]
    ordered = sorted(first, key=lambda name: -first[name])
    rows = [[short(name), *(f"{counts.get(name, 0):,}" for counts in counted.values())] for name in ordered]
    return [
        Table("Rows of each class", columns, rows, numbers_from(1, columns), frozenset({0}), len(rows) > FOLDED_FROM)
    ]


def _lengths(run: RunFiles, splits: Mapping[str, Any]) -> list[Picture | Table]:
    counts = {SPLITS[name]: found for name, found in run.data.get("lengths", {}).items() if name in splits}
    if not counts:
        return []
    cut = ", ".join(f"{percent(split['truncated'])} of the {SPLITS[name]} rows" for name, split in splits.items())
    spread = Picture(
        "lengths", "Length in tokens",
        f"Longer texts are cut at {run.data['description'].get('max_seq_length', 0):,} tokens: {cut}.",
        drawing.svg("lengths", plots.lengths(counts, lengths.edges(run.data["longest"]))),
    )  # fmt: skip
    return [spread, *_score_by_length(run)]


def _score_by_length(run: RunFiles) -> list[Picture | Table]:
    found = run.rows.get("score_by_length", ()) if run.rows.get("split") == run.split else ()
    groups = [group for group in found if group["score"] is not None]
    if not groups:
        return []
    classes = run.task is None or run.task.kind.has_classes
    label = "accuracy" if classes else "root mean squared error"
    best, worst = (choose(groups, key=lambda group: group["score"]) for choose in (max, min))
    picture = Picture(
        "score-by-length", "Score by length",
        f"Groups of about the same number of rows. Highest {label} {best['score']:.3f} at {plots.span(best)} tokens, "
        f"lowest {worst['score']:.3f} at {plots.span(worst)}.",
        drawing.svg("score-by-length", plots.score_by_length(groups, label)),
    )  # fmt: skip
    columns = ["tokens", "rows", label]
    rows = [[plots.span(group), f"{group['rows']:,}", f"{group['score']:.4f}"] for group in groups]
    return [picture, Table("Score by length as a table", columns, rows, numbers_from(1, columns), folded=True)]
