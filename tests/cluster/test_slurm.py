"""Jobs on a real Slurm without accounting, each a real training of a small model on the CPU.

A job that was interrupted in any way must end with the predictions and scores of an uninterrupted one, bit by bit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

from tests.cluster import jobs, slurm
from tests.cluster.jobs import STEPS, Work, is_training
from tests.cluster.slurm import Cluster
from tests.support import launch
from tests.support.launch import ROOT

FOUR = "--gpus 0 --nodes 2 --tasks 2 --cpus_per_task 1 --time 20"
TWO = "--gpus 0 --nodes 2 --tasks 1 --cpus_per_task 1 --time 20"
ONE = "--gpus 0 --cpus_per_task 1 --time 20"


def trains_on(cluster: Cluster, job: str, run: Path) -> None:
    """Wait until a restarted job has trained some steps more than before."""
    before = max(jobs.steps(run))
    cluster.wait(job, lambda: max(jobs.steps(run), default=0) > before + 20)


def ends_the_same(cluster: Cluster, job: str, run: Path, uninterrupted: Path) -> None:
    assert cluster.end(job) == "COMPLETED", cluster.report(job)
    assert jobs.outcome(run) == jobs.outcome(uninterrupted)
    assert jobs.steps(run) == jobs.steps(uninterrupted)


def nothing_is_left(cluster: Cluster, job: str) -> None:
    end = time.monotonic() + 30
    while cluster.processes(job):
        assert time.monotonic() < end, f"still running: {[slurm.command_line(p) for p in cluster.processes(job)]}"
        time.sleep(0.5)


# ---------------------------------------------------------------------------------------------------------------------
# Submission


def test_two_nodes_of_two_tasks_equal_torchrun_with_four(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    run = tmp_path / """a run; it's $(mine) "x" `y` #z"""
    job = work.submit(cluster, FOUR, work.flags(run, 12))
    env = launch.environment(work.folder / "hf")
    launch.cold_torchrun(4, launch.TRAIN, *work.flags(tmp_path / "torchrun", 12), env=env, cwd=work.folder).expect()
    assert cluster.end(job) == "COMPLETED", cluster.report(job)
    assert jobs.outcome(run) == jobs.outcome(tmp_path / "torchrun")
    assert json.loads((run / "manifest.json").read_text("utf-8"))["world_size"] == 4


def test_what_slurm_rejects_is_rejected_before_anything_is_written(
    cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    messages = {
        "--gpus 0 --partition nowhere": "invalid partition specified: nowhere",
        "--gpus 3": "Requested node configuration is not available",
        "--gpus 1 --nodes 3": "Node count specification invalid|Requested node configuration is not available",
        "--gpus 1 --time 2d": "Requested time limit is invalid|PartitionTimeLimit",
        "--gpus 1 --gres gpu:none": "Requested node configuration is not available|Invalid generic resource",
    }
    for own, words in messages.items():
        done = work.try_to_submit(cluster, own, work.flags(tmp_path / "run", 1))
        assert done.returncode == 2, own
        last = done.stderr.splitlines()[-1]
        assert last.startswith("error: Slurm does not take the job: "), last
        assert any(word in last for word in words.split("|")), last
    assert not (tmp_path / "run").exists()


def test_gpus_are_requested_and_allocated(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    job = work.submit(cluster, "--gpus 2 --nodes 2 --sbatch=--hold", work.flags(tmp_path / "run", 1))
    shown = cluster.show(job)
    assert (shown["TresPerNode"], shown["NumNodes"], shown["NumTasks"]) == ("gres:gpu:2", "2-2", "4")
    assert shown["CPUs/Task"] == "4"
    cluster.run("scancel", job)


def test_a_job_can_submit_another_job(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    """The outer job's two tasks, its nodes and its rank variables are not inherited by the inner one."""
    words = [sys.executable, "-m", "launch", "submit", *ONE.split(), "--", *work.flags(tmp_path / "run", 3)]
    script = tmp_path / "outer.sh"
    inner = subprocess.list2cmdline(words)
    script.write_text(
        f"#!/bin/bash\nexport RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 PYTHONPATH={ROOT} HF_HUB_OFFLINE=1\n{inner}"
    )
    outer = cluster.run(
        *("sbatch", "--parsable", "--nodes=2", "--ntasks-per-node=2", "--gpus-per-node=1", "--time=5"),
        *(f"--chdir={work.folder}", f"--output={tmp_path}/outer.out", str(script)),
    ).strip()
    assert cluster.end(outer) == "COMPLETED", (tmp_path / "outer.out").read_text()
    job = (tmp_path / "outer.out").read_text().split("submitted ")[1].split()[0]
    assert cluster.end(job) == "COMPLETED", cluster.report(job)
    assert cluster.show(job)["NumTasks"] == "1"
    assert json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))["world_size"] == 1


def test_the_code_that_was_submitted_runs_and_secrets_stay_in_the_environment(
    cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    """A checkout with a local edit and an untracked file; edited once more, and broken, while the job waits."""
    checkout, run, canary = tmp_path / "checkout", tmp_path / "run", uuid.uuid4().hex
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(checkout)], check=True)
    (checkout / "job" / "errors.py").write_text((ROOT / "job" / "errors.py").read_text("utf-8") + "\nEDITED = True\n")
    (checkout / "job" / "stray.py").write_text("")
    (work.folder / ".env").write_text(f"WANDB_API_KEY={canary}\nHF_TOKEN='{canary}'\n")
    try:
        own = [*ONE.split(), "--sbatch=--hold"]
        done = work.try_to_submit(cluster, " ".join(own), work.flags(run, STEPS), root=checkout)
    finally:
        (work.folder / ".env").unlink()
    assert done.returncode == 0, done.stderr
    assert "git does not track job/stray.py" in done.stderr
    job = done.stdout.split()[1]
    (checkout / "job" / "train.py").write_text("raise SystemExit('the checkout runs')")
    cluster.run("scontrol", "release", job)
    cluster.wait(job, lambda: is_training(run))
    environ = Path(f"/proc/{cluster.ranks(job)[0]}/environ").read_bytes()
    assert environ.count(canary.encode()) == 2, "the job has its secrets"
    lines = [slurm.command_line(int(p.name)) for p in Path("/proc").iterdir() if p.name.isdigit()]
    assert not [line for line in lines if canary.encode() in line]
    assert cluster.end(job) == "COMPLETED", cluster.report(job)

    git = json.loads((run / "manifest.json").read_text("utf-8"))["git"]
    head = subprocess.check_output(["git", "-C", str(checkout), "rev-parse", "HEAD"], text=True).strip()
    assert (git["commit"], git["dirty"]) == (head, True)
    assert "+EDITED = True" in Path(git["diff"]).read_text("utf-8")
    written = [path for folder in (run, cluster.folder / "log") for path in folder.rglob("*") if path.is_file()]
    assert len(written) > 100
    assert not [path for path in written if canary.encode() in path.read_bytes()]
    assert canary not in done.stdout + done.stderr
    assert canary not in cluster.run("scontrol", "show", "job", job)
    assert canary not in cluster.run("scontrol", "write", "batch_script", job, "-")


# ---------------------------------------------------------------------------------------------------------------------
# Interruptions


def test_a_job_timed_out_twice_equals_an_uninterrupted_one(
    cluster: Cluster, work: Work, tmp_path: Path, uninterrupted: Path
) -> None:
    run = tmp_path / "run"
    own = TWO.replace("--time 20", "--time 2 --signal_delay 70")
    job = work.submit(cluster, own, work.flags(run, STEPS, "--step_timeout_minutes", "0"))
    train_until_the_time_limit(cluster, job, run, start=0)
    train_until_the_time_limit(cluster, job, run, start=1)
    ends_the_same(cluster, job, run, uninterrupted)
    assert cluster.restarts(job) >= 2
    assert jobs.log(run, job).count("stopped by SIGUSR2: requeued") == cluster.restarts(job)


def train_until_the_time_limit(cluster: Cluster, job: str, run: Path, start: int) -> None:
    """Slurm's own limit and signal; after some steps training is held still until it comes, or it would be done."""
    before = max(jobs.steps(run), default=0)
    cluster.wait(job, lambda: cluster.restarts(job) > start or max(jobs.steps(run), default=0) > before + 20)
    ranks = cluster.ranks(job) if cluster.restarts(job) == start else []
    for pid in ranks:
        slurm.send(pid, signal.SIGSTOP)
    signalled_by = "00:00:52"  # Slurm signals 20 to 50 seconds after the start, and this may have been before
    cluster.wait(job, lambda: slurm.have_pending(ranks, signal.SIGUSR2) or cluster.show(job)["RunTime"] > signalled_by)
    for pid in ranks:
        slurm.send(pid, signal.SIGCONT)
    cluster.wait(job, lambda: cluster.restarts(job) > start)


def test_a_preempted_job_resumes(cluster: Cluster, work: Work, tmp_path: Path, uninterrupted: Path) -> None:
    """It gets only SIGTERM, saves within the grace time and is requeued although it exited by itself."""
    run = tmp_path / "run"
    job = work.submit(cluster, f"{TWO} --partition low", work.flags(run, STEPS))
    cluster.wait(job, lambda: is_training(run))
    other = cluster.run(
        *(
            "sbatch",
            "--parsable",
            "--partition=high",
            "--nodes=2",
            "--exclusive",
            "--output=/dev/null",
            "--wrap=sleep 2",
        )
    ).strip()
    cluster.wait(job, lambda: cluster.restarts(job) == 1)
    assert cluster.end(other) == "COMPLETED"
    ends_the_same(cluster, job, run, uninterrupted)
    assert "stopped by SIGTERM: requeued" in jobs.log(run, job)


def test_a_job_resumes_after_a_lost_node_a_requeue_and_a_signal_to_one_rank(
    cluster: Cluster, work: Work, tmp_path: Path, uninterrupted: Path
) -> None:
    """One job for all three. A single rank is signalled where Slurm reaches only the top process of a task."""
    run = tmp_path / "run"
    job = work.submit(cluster, TWO, work.flags(run, STEPS, "--save_steps", "20"))
    cluster.wait(job, lambda: is_training(run))
    cluster.run("scontrol", "update", "NodeName=n2", "State=DOWN", "Reason=test")
    try:
        cluster.wait(job, lambda: cluster.restarts(job) == 1)
        nothing_is_left(cluster, job)
    finally:
        cluster.run("scontrol", "update", "NodeName=n2", "State=RESUME", check=False)  # or it came back by itself

    trains_on(cluster, job, run)
    cluster.run("scontrol", "requeue", job)
    cluster.wait(job, lambda: cluster.restarts(job) == 2)

    trains_on(cluster, job, run)
    os.kill(cluster.ranks(job)[1], signal.SIGUSR2)
    cluster.wait(job, lambda: cluster.restarts(job) == 3)
    ends_the_same(cluster, job, run, uninterrupted)


def test_a_cancelled_job_leaves_nothing_running_and_resumes_when_submitted_again(
    cluster: Cluster, work: Work, tmp_path: Path, uninterrupted: Path
) -> None:
    run = tmp_path / "run"
    job = work.submit(cluster, TWO, work.flags(run, STEPS))
    cluster.wait(job, lambda: is_training(run))
    cluster.run("scancel", job)
    assert cluster.end(job) == "CANCELLED", cluster.report(job)
    nothing_is_left(cluster, job)
    assert cluster.restarts(job) == 0
    assert jobs.status(run)["state"] == "STOPPED"

    again = work.submit(cluster, TWO, work.flags(run, STEPS))
    ends_the_same(cluster, again, run, uninterrupted)
    finished = work.submit(cluster, TWO, work.flags(run, STEPS))
    before = (run / "results.json").stat().st_mtime_ns
    assert cluster.end(finished) == "COMPLETED"
    assert "has already finished" in jobs.log(run, finished)
    assert (run / "results.json").stat().st_mtime_ns == before


def test_a_sigterm_without_preemption_ends_the_job(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = work.submit(cluster, ONE, work.flags(run, 10 * STEPS))
    cluster.wait(job, lambda: is_training(run))
    cluster.run("scancel", "--signal=TERM", job)
    assert cluster.end(job) == "FAILED", cluster.report(job)
    assert (cluster.show(job)["ExitCode"], cluster.restarts(job)) == ("75:0", 0)
    assert "stopped by SIGTERM, not by Slurm: not requeued" in jobs.log(run, job)
    assert jobs.status(run)["state"] == "STOPPED"


def test_a_job_stopped_at_startup_is_requeued_and_three_restarts_without_progress_end_it(
    cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    job = work.submit(cluster, ONE, work.flags(run, 50))
    for start in range(4):

        def is_importing(start: int = start) -> bool:
            return cluster.restarts(job) == start and cluster.ranks(job) != []

        def has_stopped(start: int = start) -> bool:
            return cluster.restarts(job) > start or cluster.state(job) in slurm.ENDED

        cluster.wait(job, is_importing)
        cluster.run("scancel", "--signal=USR2", job)
        cluster.wait(job, has_stopped)
    assert cluster.end(job) == "FAILED", cluster.report(job)
    assert (cluster.show(job)["ExitCode"], cluster.restarts(job)) == ("75:0", 3)
    assert "3 restarts made no progress beyond step 0: not requeued" in jobs.log(run, job)


# ---------------------------------------------------------------------------------------------------------------------
# Failures


def test_a_failing_job_stays_failed(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    data = tmp_path / "gone.jsonl"
    data.write_bytes((work.folder / "train.jsonl").read_bytes())
    flags = work.flags(tmp_path / "run", 10, "--train_file", str(data))
    job = work.submit(cluster, f"{TWO} --sbatch=--hold", flags)
    data.unlink()
    cluster.run("scontrol", "release", job)
    assert cluster.end(job) == "FAILED", cluster.report(job)
    assert (cluster.show(job)["ExitCode"], cluster.restarts(job)) == ("2:0", 0)
    assert "error: file not found" in jobs.log(tmp_path / "run", job)


def test_a_killed_rank_ends_the_job(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = work.submit(cluster, TWO, work.flags(run, 10 * STEPS))
    cluster.wait(job, lambda: is_training(run))
    os.kill(cluster.ranks(job)[1], signal.SIGKILL)
    assert cluster.end(job) == "FAILED", cluster.report(job)
    nothing_is_left(cluster, job)
    assert cluster.restarts(job) == 0


def test_a_rank_that_hangs_is_ended_with_a_dump_of_the_stacks(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    """The bound is the job's --step_timeout_minutes; the waiting rank prints its stack, the hanging one is killed."""
    run = tmp_path / "run"
    job = work.submit(cluster, TWO, work.flags(run, 10 * STEPS, "--step_timeout_minutes", "0.2"))
    cluster.wait(job, lambda: is_training(run))
    os.kill(cluster.ranks(job)[1], signal.SIGSTOP)
    assert cluster.end(job) == "FAILED", cluster.report(job)
    nothing_is_left(cluster, job)
    log = jobs.log(run, job)
    assert "Timeout (0:00:12)!" in log
    assert "/code/job/" in log
    assert cluster.restarts(job) == 0
