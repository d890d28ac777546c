"""Launches end cleanly: gloo aborts a finished process when DDP's hooks outlive the process group.

The abort is a race, so `make test-faults` has many launches, each a cold start. A whole job of two cold
processes ends in tests/support/test_forked.py too.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from tests.support.launch import TRAIN, cold_torchrun, environment
from tests.support.tiny import tiny_model

faults = pytest.mark.faults
WHOLE_JOBS = 4


@faults
def test_whole_jobs_of_two_processes_end_with_exit_code_0(tmp_path: Path) -> None:
    tiny_model(tmp_path / "model", num_labels=None, layers=1)
    data = tmp_path / "data.csv"
    data.write_text("text,label\n" + "".join(f"{'ab' * (n + 1)},{n % 2}\n" for n in range(8)), encoding="utf-8")
    arguments = ["--model_name_or_path", str(tmp_path / "model"), "--train_file", str(data), "--validation_file",
                 str(data), "--max_steps", "2", "--metrics", "accuracy"]  # fmt: skip
    for number in range(WHOLE_JOBS):
        out = tmp_path / f"run{number}"
        done = cold_torchrun(
            2, TRAIN, *arguments, "--output_dir", str(out), env=environment(tmp_path / "home"), cwd=tmp_path
        )
        assert "terminate called" not in done.expect(0).stderr
        assert (out / "results.json").is_file()


@pytest.mark.parametrize("trainings", [pytest.param(1, marks=pytest.mark.long), pytest.param(12, marks=faults)])
def test_short_trainings_of_two_processes_end_with_exit_code_0(tmp_path: Path, trainings: int) -> None:
    for _ in range(trainings):
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        ranks = [start_rank(rank, store.port, tmp_path) for rank in range(2)]
        for process in ranks:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
            assert "terminate called" not in errors


def start_rank(rank: int, port: int, home: Path) -> subprocess.Popen[str]:
    """One of two processes, which meet at the test's store: a launcher's start would take most of the time."""
    where = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1",
             "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}  # fmt: skip
    worker = Path(__file__).parent / "workers" / "short_training.py"
    return subprocess.Popen(
        [sys.executable, str(worker)], env=environment(home, **where), stderr=subprocess.PIPE, text=True
    )
