"""What the batch script does after srun, by bash, with an scontrol that prints what a real Slurm printed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

from job.runtime import files
from launch.slurm import script

SLURM = Path(__file__).parents[3] / "launch" / "slurm"
FUNCTIONS, SCRIPT = SLURM / "functions.sh", SLURM / "requeue.sh"
RUNNING = "JobId=7 JobName=x JobState=RUNNING Reason=None PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=None "
PREEMPTED = RUNNING.replace("PreemptTime=None", "PreemptTime=2026-01-01T00:00:01")
CANCELLED = RUNNING.replace("RUNNING", "COMPLETING")
SCONTROL = """#!/bin/bash
echo "$*" >> {folder}/asked
[ "$(wc -l < {folder}/asked)" -gt {failures} ] || {{ echo "slurm_load_jobs error" >&2; exit 1; }}
[ "$1" = requeue ] || echo {job}
"""


ELEMENT: dict[str, Any] = {"SLURM_JOB_ID": "12", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3"}
"""The element of an array whose plain job id is the array's."""


def after_srun(
    folder: Path, *, rc: int, stopped_by: str | None, job: str, failures: int = 0, **variables: str
) -> tuple[int, str, bool]:
    """Exit code and output of the script, and whether it requested a requeue."""
    scontrol = SCONTROL.format(folder=shlex.quote(str(folder)), job=shlex.quote(job), failures=failures)
    for name, text in {"scontrol": scontrol, "sleep": "#!/bin/sh\n"}.items():
        (folder / name).write_text(text, encoding="ascii")
        (folder / name).chmod(0o755)
    if stopped_by:
        (folder / "marker").write_text(f"{stopped_by}\n", encoding="ascii")
    lines = [FUNCTIONS.read_text("utf-8"), "submission=muster:1", f"status={shlex.quote(str(folder / 'status.json'))}"]
    lines += [f"marker={shlex.quote(str(folder / 'marker'))}", f"(exit {rc})", "rc=$?", SCRIPT.read_text("utf-8")]
    environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", **variables}
    done = subprocess.run(["bash"], input="\n".join(lines), env=environ, capture_output=True, text=True, timeout=60)
    assert not (folder / "marker").exists()
    calls = (folder / "asked").read_text("ascii").splitlines() if (folder / "asked").exists() else []
    return done.returncode, done.stderr, "requeue 7" in calls


@pytest.mark.parametrize("rc", [0, 1, 2, 137, 143])
def test_without_a_marker_the_exit_code_is_that_of_srun(rc: int, tmp_path: Path) -> None:
    assert after_srun(tmp_path, rc=rc, stopped_by=None, job=PREEMPTED) == (rc, "", False)


@pytest.mark.parametrize(
    ("stopped_by", "job"),
    [
        ("SIGUSR2", RUNNING),
        ("SIGUSR2", PREEMPTED),
        ("SIGTERM", PREEMPTED),
        ("another rank", RUNNING),
    ],
)
def test_a_job_stopped_by_slurm_is_requeued(stopped_by: str, job: str, tmp_path: Path) -> None:
    code, output, requeued = after_srun(tmp_path, rc=143, stopped_by=stopped_by, job=job)
    assert (code, requeued) == (0, True)
    assert f"stopped by {stopped_by}: requeued" in output


@pytest.mark.parametrize(
    ("stopped_by", "job"), [("SIGTERM", RUNNING), ("SIGTERM", CANCELLED), ("SIGUSR2", CANCELLED), ("SIGINT", CANCELLED)]
)
def test_a_job_not_stopped_by_slurm_is_not_requeued(stopped_by: str, job: str, tmp_path: Path) -> None:
    code, output, requeued = after_srun(tmp_path, rc=0, stopped_by=stopped_by, job=job)
    assert (code, requeued) == (75, False)
    assert f"stopped by {stopped_by}, not by Slurm" in output


def test_requeueing_is_retried_while_the_controller_restarts(tmp_path: Path) -> None:
    code, _, requeued = after_srun(tmp_path, rc=0, stopped_by="SIGUSR2", job=RUNNING, failures=3)
    assert (code, requeued) == (0, True)


def test_an_unreachable_controller_is_reported(tmp_path: Path) -> None:
    code, output, _ = after_srun(tmp_path, rc=0, stopped_by="SIGUSR2", job=RUNNING, failures=99)
    assert code == 75
    assert "Slurm does not answer" in output
    assert "--output_dir" in output


def test_an_element_of_an_array_requeues_itself_alone(tmp_path: Path) -> None:
    after_srun(tmp_path, rc=0, stopped_by="SIGUSR2", job=RUNNING, **ELEMENT)
    assert (tmp_path / "asked").read_text("ascii").splitlines() == ["--oneliner show job 12_3", "requeue 12_3"]


# ---------------------------------------------------------------------------------------------------------------------
# --setup


@pytest.mark.parametrize(
    ("setup", "code", "reason"),
    [
        ("source ./site.sh", 3, "--setup ended the job, exit code 3: source ./site.sh"),
        ("true; exit 4", 4, "--setup ended the job, exit code 4: exit 4"),
        ("false; true", 1, "a command of --setup failed, exit code 1: false"),
        ("(exit 3) || true", 0, ""),
    ],
)
def test_a_job_that_its_setup_ends_is_failed_and_says_why(setup: str, code: int, reason: str, tmp_path: Path) -> None:
    (tmp_path / "site.sh").write_text("exit 3\n", encoding="ascii")
    files.write_json(tmp_path / "status.json", {"state": "QUEUED", "step": 7, "reason": "", "owner": "muster:1"})
    lines = [FUNCTIONS.read_text("utf-8"), "submission=muster:1", "status=./status.json", *script.setup_lines(setup)]
    environ = {**os.environ, "SLURM_JOB_ID": "7"}
    done = subprocess.run(
        ["bash"], input="\n".join([*lines, "echo srun"]), cwd=tmp_path, env=environ, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (code, f"muster: {reason}\n" if reason else "")
    assert done.stdout == ("" if reason else "srun\n")
    after = json.loads((tmp_path / "status.json").read_text("utf-8"))
    assert after["state"] == ("FAILED" if reason else "QUEUED") and reason.startswith(after["reason"])


# ---------------------------------------------------------------------------------------------------------------------
# A job that was killed: status.json


def status_after(folder: Path, *, rc: int, state: str, owner: str, **variables: str) -> dict[str, object]:
    before = {"state": state, "step": 7, "reason": "", "owner": owner, "heartbeat": "then"}
    files.write_json(folder / "status.json", before)
    assert after_srun(folder, rc=rc, stopped_by=None, job=RUNNING, failures=0, **variables)[0] == rc
    return json.loads((folder / "status.json").read_text("utf-8"))


@pytest.mark.parametrize(
    ("rc", "reason"),
    [
        (137, "exit code 137: killed by SIGKILL, out of memory?"),
        (139, "exit code 139: killed by SIGSEGV"),
        (134, "exit code 134: killed by SIGABRT"),
        (1, "exit code 1"),
    ],
)
@pytest.mark.parametrize(("state", "owner"), [("RUNNING", "slurm:7"), ("QUEUED", "muster:1")])
def test_the_status_of_a_killed_job_is_failed_and_explains_the_exit_code(
    rc: int, reason: str, state: str, owner: str, tmp_path: Path
) -> None:
    after = status_after(tmp_path, rc=rc, state=state, owner=owner)
    assert after == {"state": "FAILED", "step": 7, "reason": reason, "owner": owner, "heartbeat": "then"}


@pytest.mark.parametrize(
    ("rc", "state", "owner"),
    [
        (0, "RUNNING", "slurm:7"),
        (137, "RUNNING", "slurm:71"),
        (137, "QUEUED", "muster:12"),
        (137, "DONE", "slurm:7"),
        (1, "FAILED", "slurm:7"),
        (75, "STOPPED", "slurm:7"),
    ],
)
def test_a_status_written_by_the_job_or_by_another_is_kept(rc: int, state: str, owner: str, tmp_path: Path) -> None:
    assert status_after(tmp_path, rc=rc, state=state, owner=owner)["state"] == state


@pytest.mark.parametrize(
    ("owner", "state"), [("slurm:12_3", "FAILED"), ("slurm:12", "RUNNING"), ("slurm:12_4", "RUNNING")]
)
def test_only_the_status_of_a_killed_element_is_failed(owner: str, state: str, tmp_path: Path) -> None:
    assert status_after(tmp_path, rc=137, state="RUNNING", owner=owner, **ELEMENT)["state"] == state
