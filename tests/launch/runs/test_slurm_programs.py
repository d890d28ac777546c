"""Which variables Slurm's programs see."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import pytest

from job.errors import Refused
from launch.doctor import login
from launch.runs import slurm
from launch.slurm import client
from tests.launch.runs.synthetic import StandIns

SHOW = 'for name in ${!S*}; do echo "$name=${!name}"; done > seen'
"""Writes down the variables whose names start with S."""
IN_PROFILE = {
    **{"SQUEUE_PARTITION": "debug", "SQUEUE_STATES": "RUNNING", "SACCT_FORMAT": "User", "SCANCEL_INTERACTIVE": "1"},
    **{"SINFO_FORMAT": "%N", "SCONTROL_ALL": "1", "SBATCH_PARTITION": "debug", "SLURM_CLUSTERS": "other"},
}
ACCESS = {"SLURM_CONF": "/etc/slurm/site.conf", "SLURM_JWT": "token"}
CALLS: dict[str, Callable[[], object]] = {
    "squeue": lambda: (slurm.squeue(["7"]), client.my_jobs()),
    "sacct": lambda: slurm.sacct(["7"]),
    "scancel": lambda: slurm.scancel("7"),
    "scontrol": lambda: client.exit_code(client.Answer("7", "")),
    "sinfo": lambda: (login.partitions(""), client.unavailable("", "")),
}


@pytest.mark.parametrize("program", CALLS)
def test_options_in_the_users_profile_are_hidden_and_access_to_the_cluster_is_kept(
    program: str, stand_ins: StandIns, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {**IN_PROFILE, **ACCESS}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(stand_ins.folder)
    stand_ins.add(program, SHOW)
    with contextlib.suppress(Refused):  # it prints nothing
        CALLS[program]()
    seen = (stand_ins.folder / "seen").read_text("utf-8").splitlines()
    names = {*IN_PROFILE, *ACCESS}
    assert [line for line in seen if line.partition("=")[0] in names] == [f"{k}={v}" for k, v in ACCESS.items()]


def test_a_program_that_is_missing_is_named(stand_ins: StandIns) -> None:
    with pytest.raises(Refused, match=r"^squeue is not installed here$"):
        client.my_jobs()
