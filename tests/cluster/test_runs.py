"""status, logs, cancel and rerun on a real Slurm: what they show is what Slurm did."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.runs import slurm as runs_slurm
from tests.cluster import jobs
from tests.cluster.jobs import STEPS, Work, is_training
from tests.cluster.slurm import Cluster
from tests.support.launch import ROOT

ONE = "--gpus 0 --cpus_per_task 1 --time 20"


def launcher(cluster: Cluster, work: Work, *words: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """`python -m launch WORDS`, with the programs in the folder `path` before Slurm's own."""
    environ = {**cluster.environ, "HF_HOME": str(work.folder / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    if path:
        environ["PATH"] = f"{path}:{environ['PATH']}"
    command = [sys.executable, "-m", "launch", *words]
    done = subprocess.run(command, env=environ, cwd=work.folder, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done


def shown(cluster: Cluster, work: Work, run: Path, path: str = "") -> dict[str, Any]:
    """What `status RUN --json` says."""
    return json.loads(launcher(cluster, work, "status", str(run), "--json", path=path).stdout)


def rerun(cluster: Cluster, work: Work, run: Path) -> str:
    """The id of the next job of `run`; --hold is among the flags that are given again."""
    job = re.findall(r"^submitted (\d+)$", launcher(cluster, work, "rerun", str(run)).stdout, re.MULTILINE)[0]
    cluster.run("scontrol", "release", job)
    return job


def until(condition: Callable[[], bool], timeout: float = 60) -> None:
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(1)


def stand_in(folder: Path, name: str, script: str) -> str:
    """A folder with a program of that name."""
    folder.mkdir()
    (folder / name).write_text(f"#!/bin/bash\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)
    return str(folder)


def test_a_run_is_followed_through_the_queue_cancelled_twice_and_rerun_to_its_end(
    cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = work.submit(cluster, f"{ONE} --sbatch=--hold", work.flags(run, STEPS))
    pending = shown(cluster, work, run)
    assert (pending["state"], pending["job"]) == ("QUEUED", job)
    assert pending["note"] == "never starts: held by its user: release it with scontrol release"

    cluster.run("scontrol", "release", job)
    cluster.wait(job, lambda: is_training(run))
    running = shown(cluster, work, run)
    assert (running["state"], running["nodes"]) == ("RUNNING", "n1")
    assert "step 10/" in launcher(cluster, work, "logs", str(run)).stdout

    cluster.run("scontrol", "requeue", job)
    until(lambda: shown(cluster, work, run)["state"] == "QUEUED")
    launcher(cluster, work, "cancel", str(run))
    assert (cluster.state(job), jobs.status(run)["state"]) == ("CANCELLED", "CANCELLED")

    job = rerun(cluster, work, run)
    before = max(jobs.steps(run), default=0)
    cluster.wait(job, lambda: max(jobs.steps(run), default=0) >= before + 20)
    reached = max(jobs.steps(run))
    launcher(cluster, work, "cancel", str(run))
    saved = max(int(path.name.removeprefix("step-")) for path in (run / "checkpoints").glob("step-*"))
    assert saved >= reached, "cancel saved a new checkpoint"
    assert jobs.status(run)["state"] == shown(cluster, work, run)["state"] == "CANCELLED"
    assert cluster.restarts(job) == 0
    until(lambda: cluster.processes(job) == [])

    job = rerun(cluster, work, run)
    followed = launcher(cluster, work, "logs", str(run), "-f")
    assert f"step {STEPS}/{STEPS}" in followed.stdout and followed.stderr.endswith("run: DONE\n")
    assert cluster.end(job) == "COMPLETED", cluster.report(job)
    done = shown(cluster, work, run)
    assert (done["state"], done["step"], done["steps"]) == ("DONE", STEPS, STEPS)
    assert jobs.steps(run) == list(range(10, STEPS + 1, 10))


def test_killed_failed_and_vanished_jobs_are_distinguished(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    killed, failed = tmp_path / "killed", tmp_path / "failed"
    data = tmp_path / "gone.jsonl"
    data.write_bytes((work.folder / "train.jsonl").read_bytes())
    job = work.submit(cluster, ONE, work.flags(killed, 10 * STEPS))
    other = work.submit(cluster, f"{ONE} --sbatch=--hold", work.flags(failed, 10, "--train_file", str(data)))
    data.unlink()
    cluster.run("scontrol", "release", other)
    cluster.wait(job, lambda: is_training(killed))
    os.kill(cluster.ranks(job)[0], signal.SIGKILL)
    assert cluster.end(job) == cluster.end(other) == "FAILED"
    assert shown(cluster, work, killed)["state"] == "FAILED"
    rejected = shown(cluster, work, failed)
    assert rejected["state"] == "FAILED" and "file not found" in rejected["note"]
    assert "file not found" in launcher(cluster, work, "status", str(failed)).stdout

    record = failed / "jobs" / other / "job.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "id": "999999"}))
    (failed / "status.json").write_text(json.dumps({"state": "QUEUED"}))
    vanished = shown(cluster, work, failed)
    assert (vanished["state"], vanished["note"].split(";")[0]) == ("LOST", "unknown to Slurm: cancelled, or purged")

    slow = stand_in(tmp_path / "slow", "squeue", "sleep 60")
    silent = shown(cluster, work, failed, path=slow)
    assert (silent["state"], silent["note"]) == ("QUEUED", "Slurm did not answer")


def test_accounting_shows_how_a_job_ended_after_the_controller_purged_it(
    accounted: Cluster, work: Work, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = work.submit(accounted, ONE, work.flags(run, 10 * STEPS))
    accounted.wait(job, lambda: is_training(run))
    running = (run / "status.json").read_text()
    os.kill(accounted.ranks(job)[0], signal.SIGKILL)
    assert accounted.end(job) == "FAILED"
    stale = {**json.loads(running), "heartbeat": "2026-01-01T00:00:00+00:00"}
    (run / "status.json").write_text(json.dumps(stale), encoding="utf-8")  # as where its batch script was killed too
    forgotten = stand_in(tmp_path / "forgotten", "squeue", f"echo '{runs_slurm.SQUEUE_HEADER}'")
    until(lambda: shown(accounted, work, run, path=forgotten)["state"] == "FAILED")
    note = shown(accounted, work, run, path=forgotten)["note"]
    assert note.startswith(("failed", "killed by SIGKILL")), "Slurm gives a signal or 1, as the end is noticed"
