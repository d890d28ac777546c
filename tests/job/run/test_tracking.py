"""Steps that fp16 skips are counted and shown."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from job.config import Config
from job.run.folder import RunFolder
from job.run.tracking import Tracker, line


def tracker(folder: Path, scaler: object, resumed: Any = None) -> Tracker:
    accelerator = SimpleNamespace(
        is_main_process=True, scaler=scaler, device=torch.device("cpu"), log=lambda *_, **__: None
    )
    status = SimpleNamespace(step=0, steps=0)
    context: Any = SimpleNamespace(config=Config(), accelerator=accelerator, folder=RunFolder(folder), status=status)
    return Tracker(context, 4, resumed)


def take_steps(tracked: Tracker, norms: list[float]) -> None:
    for norm in norms:
        tracked.train_step(
            loss=(torch.tensor(1.0), 2.0),
            grad_norm=torch.tensor(norm),
            learning_rate=1e-3,
            epoch=0.1,
            examples=2,
            tokens=(8, 8),
        )


@pytest.mark.parametrize(("scaler", "expected"), [(object(), {"skipped_steps": 3}), (None, {})])
def test_overflowed_steps_are_counted_across_a_resume(tmp_path: Path, scaler: object, expected: dict[str, int]) -> None:
    first = tracker(tmp_path, scaler)
    take_steps(first, [float("inf"), 1.0])
    kept = first.state()
    first.close()
    second = tracker(tmp_path, scaler, kept)
    take_steps(second, [float("nan"), float("inf")])
    second.finish()
    record = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert second.skipped == expected and {k: v for k, v in record.items() if k == "skipped_steps"} == expected
    assert ("3 steps skipped" in line(record | {"grad_norm": 1.0}, 4)) == bool(expected)
