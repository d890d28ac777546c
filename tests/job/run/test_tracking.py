"""Steps that fp16 skips are counted and shown; no step is missing in metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from job.config import Config
from job.run.folder import RunFolder
from job.run.tracking import Recorder, line


def recorder(folder: Path, scaler: object, resumed: Any = None) -> Recorder:
    accelerator = SimpleNamespace(is_main_process=True, scaler=scaler, device=torch.device("cpu"), trackers=[])
    status = SimpleNamespace(step=0, steps=0)
    context: Any = SimpleNamespace(config=Config(), accelerator=accelerator, folder=RunFolder(folder), status=status)
    return Recorder(context, 4, resumed)


def take_steps(tracked: Recorder, norms: list[float]) -> None:
    for norm in norms:
        tracked.train_step(
            loss=(torch.tensor(1.0), 4.0),
            grad_norm=torch.tensor(norm),
            learning_rate=1e-3,
            epoch=0.1,
            examples=2,
            tokens=(8, 8),
        )


@pytest.mark.parametrize(("scaler", "expected"), [(object(), {"skipped_steps": 3}), (None, {})])
def test_overflowed_steps_are_counted_across_a_resume(tmp_path: Path, scaler: object, expected: dict[str, int]) -> None:
    first = recorder(tmp_path, scaler)
    take_steps(first, [float("inf"), 1.0])
    kept = first.state()
    first.close()
    second = recorder(tmp_path, scaler, kept)
    take_steps(second, [float("nan"), float("inf")])
    second.finish()
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert second.skipped == expected and {k: v for k, v in record.items() if k == "skipped_steps"} == expected
    assert ("3 steps skipped" in line(record | {"grad_norm": 1.0}, 4)) == bool(expected)


def records(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if "second" not in name} for line in lines]


def test_the_steps_before_an_early_stop_are_recorded_and_again_after_a_resume(tmp_path: Path) -> None:
    first = recorder(tmp_path, None)
    take_steps(first, [1.0, 2.0, 0.1])
    kept = json.loads(json.dumps(first.state()))
    first.finish()
    uninterrupted = records(tmp_path)
    (record,) = uninterrupted
    assert (record["step"], record["loss"], record["learning_rate"], record["epoch"]) == (3, 0.25, 1e-3, 0.1)
    assert record["grad_norm"] == torch.tensor(0.1).item()
    first.close()
    second = recorder(tmp_path, None, kept)
    assert records(tmp_path) == []
    second.finish()
    assert records(tmp_path) == uninterrupted


def test_the_last_step_of_a_whole_run_is_recorded_once(tmp_path: Path) -> None:
    whole = recorder(tmp_path, None)
    take_steps(whole, [1.0] * 4)
    whole.finish()
    assert [record["step"] for record in records(tmp_path)] == [4]
