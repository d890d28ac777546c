"""The doctor's batch script, whole, against a golden file; the parts that it shares with a job's are tested there.

To update it: `UPDATE_GOLDEN=1 pytest tests/launch/doctor/test_job.py`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from job.errors import Refused
from launch.doctor import job
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


def test_impossible_numbers_are_rejected() -> None:
    with pytest.raises(Refused, match="--nodes must be above 0"):
        job.plan(job.Request(1, None, 0, 600, Path("/runs/x"), Path("/runs")), Site(), {})
