"""The lines that `results` adds for a sweep: unfinished runs, importance of the settings, path of report.html."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from launch.runs import folders, run_state, tables
from launch.runs.results import Row

NEEDED = ("jinja2", "matplotlib", "optuna", "sklearn")


def show(sweep: Path, rows: Sequence[Row]) -> None:
    """Print the summary, and write report.html to the sweep's folder."""
    facts = {"not in it": _unfinished(sweep)}
    if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        facts["page"] = f"needs {', '.join(missing)}: run `results` in the training environment (make setup)"
    else:
        from launch.sweeps import page
        from launch.sweeps.importance import importances

        shares = importances(rows)
        facts["importance"] = ", ".join(f"{name} {share:.2f}" for name, share in shares.items())
        try:
            facts["page"] = str(page.write(sweep, rows, shares))
        except OSError as error:
            facts["page"] = f"{sweep / page.NAME} cannot be written: {error.strerror}"
    tables.write("")
    tables.show(tables.page(facts))


def _unfinished(sweep: Path) -> str:
    """The number of runs without results, by state."""
    runs = [run_state.read(path) for path in folders.elements(sweep) if not (path / "results.json").exists()]
    counts = Counter(run.reason if run.reason == "pruned" else run.state for run in runs)
    if missing := folders.not_started(sweep):
        counts["not started"] = len(missing)
    return ", ".join(f"{number} {state}" for state, number in sorted(counts.items()))
