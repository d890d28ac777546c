"""What the batch script does after srun, by bash, with an scontrol that says what Slurm was measured to say."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "launch" / "slurm" / "requeue.sh"
RUNNING = "JobId=7 JobName=x JobState=RUNNING Reason=None PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=None "
PREEMPTED = RUNNING.replace("PreemptTime=None", "PreemptTime=2026-01-01T00:00:01")
CANCELLED = RUNNING.replace("RUNNING", "COMPLETING")
SCONTROL = """#!/bin/bash
echo "$*" >> {folder}/asked
[ "$(wc -l < {folder}/asked)" -gt {failures} ] || {{ echo "slurm_load_jobs error" >&2; exit 1; }}
[ "$1" = requeue ] || echo {job}
"""


def after_srun(folder: Path, *, rc: int, stopped_by: str | None, job: str, failures: int = 0) -> tuple[int, str, bool]:
    """Exit code and words of the script, and whether it asked for a requeue."""
    scontrol = SCONTROL.format(folder=shlex.quote(str(folder)), job=shlex.quote(job), failures=failures)
    for name, text in {"scontrol": scontrol, "sleep": "#!/bin/sh\n"}.items():
        (folder / name).write_text(text, encoding="ascii")
        (folder / name).chmod(0o755)
    if stopped_by:
        (folder / "marker").write_text(f"{stopped_by}\n", encoding="ascii")
    lines = [f"marker={shlex.quote(str(folder / 'marker'))}", f"(exit {rc})", "rc=$?", SCRIPT.read_text("utf-8")]
    environ = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash"], input="\n".join(lines), env=environ, capture_output=True, text=True, timeout=60)
    assert not (folder / "marker").exists()
    asked = (folder / "asked").read_text("ascii").splitlines() if (folder / "asked").exists() else []
    return done.returncode, done.stderr, "requeue 7" in asked


@pytest.mark.parametrize("rc", [0, 1, 2, 137, 143])
def test_without_a_marker_the_exit_code_is_srun_s(rc: int, tmp_path: Path) -> None:
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
def test_what_slurm_stopped_goes_on(stopped_by: str, job: str, tmp_path: Path) -> None:
    code, said, requeued = after_srun(tmp_path, rc=143, stopped_by=stopped_by, job=job)
    assert (code, requeued) == (0, True)
    assert f"stopped by {stopped_by}: requeued" in said


@pytest.mark.parametrize(
    ("stopped_by", "job"), [("SIGTERM", RUNNING), ("SIGTERM", CANCELLED), ("SIGUSR2", CANCELLED), ("SIGINT", CANCELLED)]
)
def test_what_somebody_ended_stays_ended(stopped_by: str, job: str, tmp_path: Path) -> None:
    code, said, requeued = after_srun(tmp_path, rc=0, stopped_by=stopped_by, job=job)
    assert (code, requeued) == (75, False)
    assert f"stopped by {stopped_by}, not by Slurm" in said


def test_a_controller_that_restarts_is_asked_again(tmp_path: Path) -> None:
    code, _, requeued = after_srun(tmp_path, rc=0, stopped_by="SIGUSR2", job=RUNNING, failures=3)
    assert (code, requeued) == (0, True)


def test_a_controller_that_stays_away_is_named(tmp_path: Path) -> None:
    code, said, _ = after_srun(tmp_path, rc=0, stopped_by="SIGUSR2", job=RUNNING, failures=99)
    assert code == 75
    assert "Slurm does not answer" in said
    assert "--output_dir" in said
