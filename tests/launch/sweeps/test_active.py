"""Which GPUs the runs of a sweep use that outlived the process that started them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from job import config
from launch.records import Record
from launch.runs import processes
from launch.sweeps import active
from launch.sweeps import sweep as sweeps


def test_the_devices_of_runs_that_still_run_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    made = sweeps.grid(config.load_recipe("demo"), "demo", {"seed": (1, 2, 3, 4)})
    environs = [
        {**os.environ, "CUDA_VISIBLE_DEVICES": "2,3"},
        dict(os.environ),
        {**os.environ, "CUDA_VISIBLE_DEVICES": "7"},
    ]
    running = [subprocess.Popen(["sleep", "60"], env=environ) for environ in environs]
    try:
        for process, element in zip(running, made.elements, strict=False):
            record = Record("local", f"here-{process.pid}", [], "config.yaml", str(tmp_path), pid=process.pid,
                            process_start=processes.started(process.pid))  # fmt: skip
            (element.run / record.folder).mkdir(parents=True)
            record.write(element.run)
        running[2].kill()
        running[2].wait()
        assert active.devices(made) == ("2,3", None)
    finally:
        for process in running:
            process.kill()
            process.wait()
