"""The GPU cases start, end and are reported correctly on a machine without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu import cases
from tests.gpu.__main__ import FAILED, Conductor
from tests.gpu.plan import CASES

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.long
def test_on_the_cpu_cases_run_or_are_reported_as_not_run(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.gpu", "--device", "cpu", "--output", str(tmp_path)],
        cwd=ROOT, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    states = {name: case["state"] for name, case in json.loads((tmp_path / "cases.json").read_text()).items()}
    assert states == {case.name: "not run" if case.needs_gpu else "held" for case in CASES}
    assert done.stdout.endswith((tmp_path / "table.txt").read_text())


def test_on_a_gpu_a_case_that_does_not_run_is_a_failure() -> None:
    command = [sys.executable, "-m", "tests.gpu", "--device", "cuda", "--seconds", "1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.count("not run")) == (1, len(CASES))


def test_a_failing_case_is_reported_with_its_last_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    kernels = next(case for case in CASES if case.name == "kernels")
    outcome = Conductor("cuda", tmp_path, seconds=60).run(kernels)
    assert outcome.state == FAILED
    assert "Error" in capsys.readouterr().out


def test_every_case_has_a_function() -> None:
    assert all(callable(getattr(cases, case.name)) for case in CASES)
