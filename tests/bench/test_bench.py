"""The bench itself runs through and says what it measured; that one is faster than another is never asserted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from job.batching import planner
from tests.bench import gpu, plan, prepare, report

ROOT = Path(__file__).resolve().parents[2]
PNG = b"\x89PNG"


def bench(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    hidden = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=hidden, capture_output=True, text=True)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """The plan, run with a toy model: its output folder and results."""
    folder = tmp_path_factory.mktemp("bench")
    done = bench("tests.bench", "--tiny", "--output", str(folder))
    assert done.returncode == 0, done.stderr
    results = json.loads((folder / "results-cpu.json").read_text())
    return folder, results["workloads"][plan.LONG]


@pytest.mark.long
def test_every_kind_of_contestant_trains_and_evaluates(measured: tuple[Path, dict[str, Any]]) -> None:
    rows = measured[1]["rows"]
    assert set(rows) == {plan.OURS, plan.TUNED, plan.TUTORIAL, plan.LOOP}
    for row in rows.values():
        assert min(row["examples_per_second"]) > 0 and min(row["evaluated_per_second"]) > 0
        assert 0 < row["real"] <= 1 and 0 <= row["accuracy"] <= 1
        assert row["first_step_seconds"] > 0 and row["peak_bytes"] > 1e8 and min(row["machine"]) > 0


@pytest.mark.long
def test_contestants_in_the_common_order_see_the_same_examples(measured: tuple[Path, dict[str, Any]]) -> None:
    entries = measured[1]["entries"]
    seen = {name: entries[name]["rounds"][0]["real"] for name in (plan.OURS, plan.TUTORIAL, plan.LOOP)}
    assert len(set(seen.values())) == 1, seen


@pytest.mark.long
def test_losses_equal_those_of_a_plain_loop_step_by_step(measured: tuple[Path, dict[str, Any]]) -> None:
    curve = measured[1]["curve"]
    assert curve["steps"] >= 4
    assert curve["ours"] == pytest.approx(curve["reference"], abs=report.CURVE_TOLERANCE)


@pytest.mark.long
def test_a_table_and_a_picture_are_written(measured: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = measured
    text = (folder / "RESULTS.md").read_text()
    assert all(f"| {name} |" in text for name in (plan.OURS, plan.TUNED, plan.TUTORIAL, plan.LOOP))
    assert (folder / "cpu.png").read_bytes().startswith(PNG)


@pytest.mark.long
def test_without_a_gpu_the_gpu_bench_says_so_in_one_line() -> None:
    done = bench("tests.bench.gpu")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: no CUDA GPU here: `make bench` measures on the CPU\n"


@pytest.mark.long
def test_every_row_of_the_gpu_bench_runs_with_a_toy_model(tmp_path: Path) -> None:
    done = bench("tests.bench.gpu", "--tiny", "--rounds", "1", "--seconds", "600", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    (written,) = tmp_path.glob("gpu-*.json")
    results = json.loads(written.read_text())["results"]
    assert [result["row"]["name"] for result in results] == [row.name for row in gpu.rows()]
    assert all(result["rounds"][0]["examples_per_second"] > 0 for result in results)
    assert written.with_suffix(".md").read_text() in done.stdout


def test_every_round_has_examples_of_typical_cost() -> None:
    costs = planner.epoch_order(4000, seed=1, epoch=0).astype(float) ** 2
    seed = prepare.typical_seed(costs, batch=8, warmup=1, turn=5, rounds=3)
    order = planner.epoch_order(4000, seed, 0)
    for start in (2, 7, 12):
        assert costs[order[start * 8 : (start + 4) * 8]].mean() == pytest.approx(costs.mean(), rel=0.1)


def test_ratios_are_taken_within_rounds() -> None:
    assert report.ratios([8.0, 4.0, 9.0], [2.0, 1.0]) == [4.0, 4.0]


def test_every_bar_names_existing_rows() -> None:
    cpu = plan.cpu()
    rows = {workload.name: {entry.name for entry in workload.entries} for workload in cpu.workloads}
    for bar in cpu.bars:
        assert {bar.of, bar.to or bar.of} <= rows[bar.workload]


def never_ends(until: float) -> None:
    """Errors are also handled."""
    while time.monotonic() < until:
        with suppress(Exception):
            time.sleep(1)


def test_a_hanging_row_of_the_gpu_bench_is_killed() -> None:
    begun = time.monotonic()
    with pytest.raises(gpu.RanOut), gpu.limited(0.2):
        never_ends(begun + 60)
    assert time.monotonic() < begun + 30
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
