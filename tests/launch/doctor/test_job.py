"""The doctor's batch script, whole, against a golden file; the parts that it shares with a job's are tested there.

To update it: `UPDATE_GOLDEN=1 pytest tests/launch/doctor/test_job.py`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from job.errors import Refused
from launch import cli
from launch.doctor import job
from launch.runs.slurm import SQUEUE_HEADER
from launch.sites import Site
from tests.support import golden

GOLDEN = Path(__file__).parent / "golden"
REQUEST = job.Request(4, None, 2, 600, Path("/my runs/.doctor-now"), Path("/my runs"))
PLANS = {
    "two_nodes": Site(partition="gpu", master_addr="10.0.0.1", setup="module load cuda", sbatch="--mem=64G"),
    "apptainer": Site(container="apptainer", image="/images/muster.sif"),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_equals_the_golden_file(name: str) -> None:
    planned = job.plan(REQUEST, PLANS[name], {"HF_HOME": "/cache"})
    text = f"{planned.plan}\n".replace(sys.executable, "<python>")
    text = re.sub("muster-doctor:[0-9a-f]{16}", "muster-doctor:<token>", text)
    golden.check(GOLDEN / f"{name}.sh", text)
    subprocess.run(["bash", "-n"], input=planned.plan.script, text=True, check=True)


def test_every_golden_file_has_its_plan() -> None:
    assert {path.stem for path in GOLDEN.iterdir()} == set(PLANS)


def test_slurm_is_asked_about_the_time_limit_of_a_real_job() -> None:
    planned = job.plan(REQUEST, Site(time="30d"), {})
    assert "#SBATCH --time=43200\n" in planned.asked.script
    assert "#SBATCH --time=5\n" in planned.plan.script


ENDS = f"echo '{SQUEUE_HEADER}'; echo '7|COMPLETED|0:01|1:00|n1|None|(null)'"
COMMANDS = {
    "sbatch": "case \"$*\" in *--test-only*) exit 0 ;; esac; echo '7;east'",
    "srun": "",
    "sinfo": "",
    "squeue": ENDS,
    "scontrol": "echo 'JobId=7 ExitCode=91:0 BatchHost=n1'",
    "scancel": "",
}


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts stand-ins for Slurm's commands on PATH, which record how they are called; returns the folder to work in."""

    def make(**changed: str) -> Path:
        for name, body in (COMMANDS | changed).items():
            (tmp_path / name).write_text(f'#!/bin/bash\necho "{name} $*" >> {tmp_path}/calls\n{body}\n', "ascii")
            (tmp_path / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        monkeypatch.chdir(tmp_path)
        return tmp_path

    return make


DOCTOR = ["doctor", "--gpus=1", "--sbatch=--clusters=east"]


def test_a_job_on_another_cluster_is_followed_there(slurm: Callable[..., Path]) -> None:
    here = slurm()
    assert cli.main(DOCTOR) == 2, "the node does not see the folder"
    calls = (here / "calls").read_text("ascii").splitlines()
    assert [call for call in calls if "--jobs=7" in call or "show job 7" in call] == [
        "squeue --array --states=all --format=%i|%T|%M|%L|%N|%r|%k --jobs=7 --clusters=east",
        "scontrol --oneliner --clusters=east show job 7",
    ]


@pytest.mark.parametrize(("command", "number"), [("sbatch", "TERM"), ("squeue", "INT")])
def test_an_interrupted_doctor_cancels_its_job_and_leaves_no_files(
    command: str, number: str, slurm: Callable[..., Path], capfd: pytest.CaptureFixture[str]
) -> None:
    interrupt = f'case "$*" in *--jobs=7*|--parsable*) kill -{number} $PPID; sleep 0.2 ;; esac; '
    here = slurm(**{command: interrupt + COMMANDS[command]})
    assert cli.main(DOCTOR) == 130
    assert capfd.readouterr().err.splitlines()[-1] == "interrupted"
    assert (here / "calls").read_text("ascii").splitlines()[-1] == "scancel --clusters=east 7"
    assert not (here / "runs").exists()


def test_a_full_disk_is_a_failed_check(slurm: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    here = slurm()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(job.snapshot, "copy", full)
    [finding] = job.run(job.plan(replace(REQUEST, folder=here), Site(), {}), print)
    assert (finding.state, finding.detail) == ("failed", f"{here} cannot be written: No space left on device")


def test_impossible_numbers_are_rejected() -> None:
    with pytest.raises(Refused, match="--nodes must be above 0"):
        job.plan(job.Request(1, None, 0, 600, Path("/runs/x"), Path("/runs")), Site(), {})
