"""What was measured -> rates, ratios, tables. Every number of a table can be recomputed from the results file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.plan import MACHINE, OURS, Bar, Plan

CURVE_TOLERANCE = 1e-4
COLUMNS = (
    "contestant", "settings", "examples/s", "ours is faster by", "real tokens/s", "real share", "of the machine",
    "evaluation, examples/s", "first step, s", "peak, GiB", "accuracy",
)  # fmt: skip
INTRODUCTION = """# Side by side

Written by `make bench` and `make bench-gpu`. All contestants of a table ran in one go, by turns, on the same weights,
the same examples and the same recipe; [contestants.py](contestants.py) has the code of each. Rates are medians over
the rounds. A ratio is taken within each round: its median is shown, and in brackets its least and greatest.

- *real share*: tokens that are no padding, of those computed. *of the machine*: model FLOP/s (matrix products of real
  tokens, a training step as three forward passes) over the FLOP/s of matrix products of the model's shapes, timed in
  the same round at the same precision; in brackets without what no answer needs: the last layer's tokens other than
  the first, which the head does not read and ours, packed, does not compute.
- *first step*: from the start of the process to the end of its first optimizer step. *peak*: of the process.
- *accuracy*: of the evaluation set after this many examples; those who took fewer steps have learnt less.
"""


def finish(results: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """The results with all that follows from them: rates, ratios to ours, bars, the comparison of losses."""
    finished = dict(results)
    for workload in plan.workloads:
        measured = finished["workloads"][workload.name]
        rows = {name: _row(entry, measured, plan) for name, entry in measured["entries"].items() if name != MACHINE}
        rows = {name: row for name, row in rows.items() if row["examples_per_second"]}
        measured["rows"] = rows
        measured["losers"] = [_row(entry, measured, plan) for entry in measured["losers"]]
        if workload.curve:
            measured["curve"] = _curve(*(measured["entries"][name]["end"]["losses"] for name in workload.curve))
    finished["bars"] = [_judged(bar, finished["workloads"]) for bar in plan.bars]
    return finished


def _row(entry: Mapping[str, Any], measured: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """One contestant's numbers; lists have one value a round."""
    work, rounds = measured["work"], entry["rounds"]
    of = entry["entry"]
    flops = [3 * work["flops"] / work["tokens"] * r["real"] / r["seconds"] for r in rounds]
    share = work["needed_flops"] / work["flops"]
    machine = [r[of["precision"]] for r in measured["entries"][MACHINE]["rounds"]]
    steps = 1 + entry["turns"] * (plan.warmup + of["steps"])
    return {
        "name": of["name"],
        "settings": of["settings"],
        "examples_per_second": [plan.batch * r["steps"] / r["seconds"] for r in rounds],
        "tokens_per_second": [r["real"] / r["seconds"] for r in rounds],
        "real": sum(r["real"] for r in rounds) / max(1, sum(r["computed"] for r in rounds)),
        "machine": [mine / best for mine, best in zip(flops, machine, strict=False)],
        "machine_needed": [share * mine / best for mine, best in zip(flops, machine, strict=False)],
        "model_flops_per_second": flops,
        "evaluated_per_second": [e["examples"] / e["seconds"] for e in entry["evaluations"]],
        "first_step_seconds": entry["first"]["seconds"],
        "peak_bytes": entry["end"].get("peak_bytes"),
        "accuracy": entry["end"].get("accuracy"),
        "trained_on": plan.batch * steps,
    }


def _curve(ours: Sequence[float], reference: Sequence[float]) -> dict[str, Any]:
    apart = [abs(a - b) for a, b in zip(ours, reference, strict=True)]
    return {"steps": len(apart), "apart": max(apart), "met": max(apart) <= CURVE_TOLERANCE,
            "ours": list(ours), "reference": list(reference)}  # fmt: skip


def ratios(one: Iterable[float], other: Iterable[float]) -> list[float]:
    """Round by round, as far as both took part."""
    return [a / b for a, b in zip(one, other, strict=False)]


def _judged(bar: Bar, workloads: Mapping[str, Any]) -> dict[str, Any]:
    """The bar with the value measured (none: who it is about did not run) and whether it is met."""
    rows = workloads[bar.workload]["rows"]
    values = _values(bar, rows[bar.of], rows.get(bar.to)) if bar.of in rows and (not bar.to or bar.to in rows) else []
    value = median(values) if values else None
    met = None if value is None else value <= bar.bar if bar.at_most else round(value, 4) >= bar.bar
    return {**asdict(bar), "values": values, "value": value, "met": met}


def _values(bar: Bar, of: Mapping[str, Any], to: Mapping[str, Any] | None) -> list[float]:
    if bar.quantity == "real":
        return [of["real"]]
    if bar.quantity == "machine":
        return of["machine"]
    assert to is not None
    if bar.quantity == "first step":
        return [of["first_step_seconds"] / to["first_step_seconds"]]
    rate = {"training": "examples_per_second", "evaluation": "evaluated_per_second"}[bar.quantity]
    return ratios(of[rate], to[rate])


# ---------------------------------------------------------------------------------------------------------------------
# Text


def document(folder: Path) -> str:
    """RESULTS.md: a section for every results file in `folder`, and the pages of the GPU bench as they are."""
    results = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("results-*.json"))]
    pages = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("gpu-*.md"))]
    return "\n".join([INTRODUCTION, *map(section, results), *pages])


def section(results: Mapping[str, Any]) -> str:
    """Hardware, a table for each workload, the bars."""
    hardware = results["hardware"]
    where = f"{hardware['cores']} core(s) of {hardware['cpu']}"
    versions = ", ".join(f"{name} {hardware[name]}" for name in ("torch", "transformers", "accelerate", "datasets"))
    facts = f"Model: {results['size']}. {versions}. The whole run took {results['seconds'] / 60:.0f} min."
    lines = [f"## {where}, {results['date']}", "", facts, "", f"![rates]({results['plan']}.png)"]
    for name, measured in results["workloads"].items():
        lines += ["", f"### {name.capitalize()}", "", _facts(measured), "", *_table(measured)]
    return "\n".join([*lines, "", "### Bars", "", *_bars(results["bars"]), ""])


def _facts(measured: Mapping[str, Any]) -> str:
    work, rounds = measured["work"], measured["entries"][MACHINE]["rounds"]
    of = ", ".join(f"{kind} {median(r[kind] for r in rounds) / 1e12:.3g} TFLOP/s" for kind in ("fp32", "bf16"))
    lengths = "/".join(map(str, work["lengths"]))
    text = (f"Tokens of an example: mean {work['tokens']:.0f}, quantiles 0/5/25/50/75/95/100 %: {lengths}. "
            f"Batch {work['batch']}. Matrix products: {of}.")  # fmt: skip
    if "curve" in measured:
        curve = measured["curve"]
        met = "met" if curve["met"] else "not met"
        text += (f" Without dropout the losses of ours and of the plain loop (d) are at most {curve['apart']:.1e} "
                 f"apart in {curve['steps']} steps (bar {CURVE_TOLERANCE:.0e}: {met}).")  # fmt: skip
    for loser in measured["losers"]:
        text += (
            f" Tried and slower: {loser['name']}, {loser['settings']}: {median(loser['examples_per_second']):.3g}/s."
        )
    return text


def _table(measured: Mapping[str, Any]) -> list[str]:
    rows = measured["rows"]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    return lines + ["| " + " | ".join(_cells(row, rows[OURS])) + " |" for row in rows.values()]


def _cells(row: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    same = row["name"] == OURS
    evaluated, accuracy = row["evaluated_per_second"], row["accuracy"]
    return [
        row["name"],
        row["settings"],
        f"{median(row['examples_per_second']):.3g}",
        "" if same else spread(ratios(ours["examples_per_second"], row["examples_per_second"])),
        f"{median(row['tokens_per_second']):.3g}",
        f"{row['real']:.2f}",
        f"{median(row['machine']):.0%} ({median(row['machine_needed']):.0%})",
        f"{median(evaluated):.3g}" if evaluated else "",
        f"{row['first_step_seconds']:.1f}",
        f"{row['peak_bytes'] / 2**30:.2f}",
        "" if accuracy is None else f"{accuracy:.3f} after {row['trained_on']}",
    ]


def spread(values: Sequence[float]) -> str:
    """Median, least and greatest."""
    return f"{median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _bars(bars: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| workload | what | bar | measured | |", "|---|---|---|---|---|"]
    for bar in bars:
        what = f"{bar['quantity']}: {bar['of']}" + (f" / {bar['to']}" if bar["to"] else "")
        measured = "did not run" if bar["value"] is None else spread(bar["values"])
        met = {None: "", True: "met", False: "not met"}[bar["met"]]
        sign = "<=" if bar["at_most"] else ">="
        lines.append(f"| {bar['workload']} | {what} | {sign} {bar['bar']:g} | {measured} | {met} |")
    return lines
