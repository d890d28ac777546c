"""The rates as a picture: a panel for each workload, a bar for each contestant, its rounds as dots."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

OURS, PEER = "#1f6f8b", "#b0b7bd"


def draw(results: Mapping[str, Any], path: Path) -> None:
    """Training examples/s of every contestant as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    workloads = results["workloads"]
    heights = [len(measured["rows"]) for measured in workloads.values()]
    figure, panels = pyplot.subplots(
        len(workloads), 1, squeeze=False, figsize=(9, 1.2 + 0.42 * sum(heights) + 0.8 * len(heights)),
        gridspec_kw={"height_ratios": heights}, layout="constrained",
    )  # fmt: skip
    for panel, (name, measured) in zip(panels[:, 0], workloads.items(), strict=True):
        _panel(panel, name, measured["rows"])
    panels[-1, 0].set_xlabel("training, examples/s (bar: median of the rounds; dots: each round)")
    figure.savefig(path, dpi=120, metadata={"Software": None})
    pyplot.close(figure)


def _panel(panel: Any, name: str, rows: Mapping[str, Any]) -> None:
    names = list(rows)[::-1]
    rates = [rows[row]["examples_per_second"] for row in names]
    middles = [median(values) for values in rates]
    panel.barh(names, middles, color=[OURS if row.startswith("ours") else PEER for row in names])
    for height, values in enumerate(rates):
        panel.plot(values, [height] * len(values), ".", color="black", markersize=4)
        panel.annotate(f"{middles[height]:.3g}", (max(values), height), xytext=(6, -3), textcoords="offset points")
    panel.set_title(name, loc="left")
    panel.spines[["top", "right"]].set_visible(False)
    panel.set_xlim(right=1.12 * max(map(max, rates)))
