"""Jobs on a real Slurm without accounting, each a real training of a small model on the CPU."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import jobs
from tests.cluster.jobs import Work
from tests.cluster.slurm import Cluster
from tests.support import launch

FOUR = "--gpus 0 --nodes 2 --tasks 2 --cpus_per_task 1 --time 10"
TWO = "--gpus 0 --nodes 2 --tasks 1 --cpus_per_task 1 --time 10"


def test_two_nodes_of_two_tasks_equal_torchrun_with_four(cluster: Cluster, work: Work, tmp_path: Path) -> None:
    job = work.submit(cluster, FOUR, work.flags(tmp_path / "a run; it's $(mine)", 12))
    env = launch.environment(work.folder / "hf")
    launch.torchrun(4, launch.TRAIN, *work.flags(tmp_path / "torchrun", 12), env=env, cwd=work.folder).expect()
    assert cluster.end(job) == "COMPLETED", cluster.told(job)
    assert jobs.outcome(tmp_path / "a run; it's $(mine)") == jobs.outcome(tmp_path / "torchrun")
