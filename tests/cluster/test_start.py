"""Ranks that have to find each other first: stopped, unreachable or killed meanwhile."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.cluster import jobs, slurm
from tests.cluster.jobs import Work, is_training
from tests.cluster.slurm import Cluster

TWO = "--gpus 0 --nodes 2 --tasks 1 --cpus_per_task 1 --time 20"
TWO_OF_ONE = "--gpus 0 --tasks 2 --cpus_per_task 1 --time 20"


def hold_the_second_rank(cluster: Cluster, job: str, run: Path, start: int) -> None:
    """Stop rank 1 while it imports; return once rank 0 waits for it."""
    cluster.wait(job, lambda: cluster.restarts(job) == start and len(cluster.ranks(job)) == 2)
    os.kill(cluster.ranks(job)[1], signal.SIGSTOP)
    cluster.wait(job, (run / "jobs" / job / f"rendezvous-{job}-{start}").exists)


def test_a_job_stopped_while_its_ranks_join_is_requeued_and_finishes(
    cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    """Preempted, then signalled as at the time limit: both times only rank 0 can act, because the other one never
    arrives."""
    run = tmp_path / "run"
    job = work.submit(cluster, f"{TWO} --partition low", work.flags(run, 30))
    hold_the_second_rank(cluster, job, run, start=0)
    other = cluster.preempt()
    cluster.wait(job, lambda: cluster.restarts(job) == 1)
    assert cluster.end(other) == "COMPLETED"
    hold_the_second_rank(cluster, job, run, start=1)
    cluster.run("scancel", "--signal=USR2", job)
    cluster.wait(job, lambda: cluster.restarts(job) == 2)
    assert cluster.end(job) == "COMPLETED", cluster.report(job)
    log = jobs.log(run, job)
    assert "stopped by SIGTERM: requeued" in log
    assert "stopped by SIGUSR2: requeued" in log
    assert jobs.status(run)["state"] == "DONE"
    assert max(jobs.steps(run)) == 30


def test_a_first_node_whose_name_does_not_resolve_is_reported_and_one_node_needs_no_name(
    cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    job = work.submit(cluster, TWO, work.flags(tmp_path / "two", 3), MUSTER_MASTER_ADDR="")
    alone = work.submit(cluster, TWO_OF_ONE, work.flags(tmp_path / "one", 3), MUSTER_MASTER_ADDR="")
    assert cluster.end(job, 120) == "FAILED", cluster.report(job)
    assert cluster.show(job)["ExitCode"] == "2:0"
    log = jobs.log(tmp_path / "two", job)
    assert "error: the first node's name n1 does not resolve on " in log
    assert "set MUSTER_MASTER_ADDR (--master_addr) to its address" in log
    assert jobs.status(tmp_path / "two")["state"] == "FAILED"
    assert cluster.end(alone) == "COMPLETED", cluster.report(alone)


def test_an_unreachable_first_node_is_reported(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    """To a broadcast address no system opens a connection."""
    job = work.submit(cluster, TWO, work.flags(tmp_path / "run", 3), MUSTER_MASTER_ADDR="255.255.255.255")
    assert cluster.end(job, 120) == "FAILED", cluster.report(job)
    log = jobs.log(tmp_path / "run", job, rank=1)
    assert "error: rank 0 listens at 255.255.255.255, port " in log
    assert "set MUSTER_MASTER_ADDR (--master_addr) to an address of the first node that the other nodes reach" in log
    assert "Traceback" not in log
    assert jobs.status(tmp_path / "run")["state"] == "FAILED"


def test_the_status_of_a_killed_job_says_so(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    run = tmp_path / "run"
    job = work.submit(cluster, TWO_OF_ONE, work.flags(run, 10000))
    cluster.wait(job, lambda: is_training(run))
    assert jobs.status(run)["state"] == "RUNNING"
    for pid in cluster.ranks(job):
        slurm.send(pid, signal.SIGKILL)
    assert cluster.end(job) == "FAILED", cluster.report(job)
    assert jobs.status(run)["state"] == "FAILED"
    assert jobs.status(run)["reason"] == "exit code 137: killed by SIGKILL, out of memory?"
