"""What the doctor queries from Slurm before it submits a job."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from launch.doctor import login
from launch.doctor.checks import Problem
from launch.plan import Plan


def program(folder: Path, name: str, script: str) -> None:
    """Make the command `name` in `folder`."""
    (folder / name).write_text(f"#!/bin/bash\n{script}\n", encoding="ascii")
    (folder / name).chmod(0o755)


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """A job; Slurm's commands are looked for in its working directory first."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return Plan(("sbatch",), (), tmp_path, "#!/bin/bash\n")


def test_the_job_is_tested_without_variables_that_a_submission_also_removes(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "sbatch", '[ -z "$SBATCH_PARTITION" ] || { echo "invalid partition" >&2; exit 1; }')
    monkeypatch.setenv("SBATCH_PARTITION", "gone")
    assert login.request(plan, "main", "") == "accepted in partition main"
    assert os.environ["SBATCH_PARTITION"] == "gone"


def test_a_rejected_partition_is_answered_with_the_available_ones(tmp_path: Path, plan: Plan) -> None:
    program(tmp_path, "sbatch", 'echo "sbatch: error: invalid partition specified: gone" >&2; exit 1')
    program(tmp_path, "sinfo", "echo 'main (2 nodes, gpu:4, 1-00:00:00)'")
    with pytest.raises(Problem, match="invalid partition specified: gone") as problem:
        login.request(plan, "gone", "")
    assert problem.value.remedy.endswith("there are main (2 nodes, gpu:4, 1-00:00:00)")
    program(tmp_path, "sinfo", 'echo "asked with ${@: -1}"')
    with pytest.raises(Problem) as problem:
        login.request(plan, "gone", "east")
    assert problem.value.remedy.endswith("there are asked with --clusters=east")


def test_a_sinfo_that_hangs_does_not_block_the_doctor(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path, "sbatch", 'echo "sbatch: error: invalid partition specified: gone" >&2; exit 1')
    program(tmp_path, "sinfo", "exec sleep 600")
    monkeypatch.setattr(login, "SINFO_SECONDS", 0.2)
    began = time.monotonic()
    with pytest.raises(Problem) as problem:
        login.request(plan, "gone", "")
    assert time.monotonic() - began < 60
    assert "sinfo did not answer in 0 s" in problem.value.remedy
