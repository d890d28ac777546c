"""Jobs on a Slurm with slurmdbd and MariaDB, where a preempted job gets SIGUSR2 first; and in a container."""

from __future__ import annotations

import sys
import uuid
from pathlib import Path

from tests.cluster import jobs
from tests.cluster.jobs import STEPS, Work, is_training
from tests.cluster.slurm import Cluster
from tests.support.launch import ROOT

TWO = "--gpus 0 --nodes 2 --tasks 1 --cpus_per_task 1 --time 20"
STAND_IN = Path(__file__).parent


def accounted_as(cluster: Cluster, job: str, state: str) -> bool:
    """Whether accounting, which lags behind the controller, eventually has `state` for the last start of a job."""

    def is_accounted() -> bool:
        return cluster.run("sacct", "-X", "-n", "-P", "-D", "-o", "State", "-j", job).split()[-1:] == [state]

    cluster.wait(job, is_accounted, timeout=60)
    return True


def test_a_preempted_job_that_gets_sigusr2_resumes(
    accounted: Cluster, work: Work, tmp_path: Path, uninterrupted: Path
) -> None:
    run = tmp_path / "run"
    job = work.submit(accounted, f"{TWO} --partition low", work.flags(run, STEPS))
    accounted.wait(job, lambda: is_training(run))
    other = accounted.preempt()
    accounted.wait(job, lambda: accounted.restarts(job) == 1)
    assert accounted.end(other) == "COMPLETED"
    assert accounted.end(job) == "COMPLETED", accounted.report(job)
    assert jobs.outcome(run) == jobs.outcome(uninterrupted)
    assert "stopped by SIGUSR2: requeued" in jobs.log(run, job)
    assert accounted_as(accounted, job, "COMPLETED")


def test_reports_of_a_failed_job_contain_no_secret(accounted: Cluster, work: Work, tmp_path: Path) -> None:
    """Accounting keeps how a job was submitted."""
    data, canary = tmp_path / "gone.jsonl", uuid.uuid4().hex
    data.write_bytes((work.folder / "train.jsonl").read_bytes())
    flags = work.flags(tmp_path / "run", 10, "--train_file", str(data))
    job = work.submit(accounted, f"{TWO} --sbatch=--hold", flags, HF_TOKEN=canary)
    data.unlink()
    accounted.run("scontrol", "release", job)
    assert accounted.end(job) == "FAILED", accounted.report(job)
    assert accounted_as(accounted, job, "FAILED")
    assert canary not in accounted.run("sacct", "-P", "-o", "ALL", "-j", job)


def test_a_job_in_a_container_stops_and_resumes(
    accounted: Cluster, work: Work, tmp_path: Path, uninterrupted: Path
) -> None:
    """In it there is no scontrol, the code is the mounted snapshot, and only what is mounted can be read."""
    run, image = tmp_path / "run", tmp_path / "image.txt"
    pythons = {str(Path(sys.executable).parents[1]), str(Path(sys.executable).resolve().parents[1])}
    image.write_text("\n".join(["/usr", *sorted(pythons)]) + "\n", encoding="ascii")
    path = f"{STAND_IN}:{Path(sys.executable).parent}:{accounted.environ['PATH']}"
    own = f"{TWO} --partition low --container apptainer --image {image}"
    job = work.submit(accounted, own, work.flags(run, STEPS), PATH=path)
    accounted.wait(job, lambda: is_training(run))
    [rank, _] = accounted.ranks(job)
    assert not Path(f"/proc/{rank}/root{ROOT}/launch").exists(), "the checkout is not to be seen"
    assert Path(f"/proc/{rank}/root/usr/bin/scontrol").is_char_device()
    accounted.preempt()
    accounted.wait(job, lambda: accounted.restarts(job) == 1)
    assert accounted.end(job) == "COMPLETED", accounted.report(job)
    assert jobs.outcome(run) == jobs.outcome(uninterrupted)
    assert "stopped by SIGUSR2: requeued" in jobs.log(run, job)
