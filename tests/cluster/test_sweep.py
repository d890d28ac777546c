"""A sweep on a real Slurm: one array, whose elements are runs that end, fail and resume independently."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster import jobs
from tests.cluster.jobs import STEPS, Work, is_training
from tests.cluster.slurm import Cluster

ONE = "--gpus 0 --cpus_per_task 1 --time 20"


def sweep(cluster: Cluster, work: Work, folder: Path, own: str, grid: str, steps: int) -> str:
    """What `sweep --grid GRID` prints."""
    given = re.match(r"(\w+)=", grid)
    assert given
    flags = work.flags(folder, steps)
    if (flag := f"--{given[1]}") in flags:
        at = flags.index(flag)
        flags[at : at + 2] = []
    words = [sys.executable, "-m", "launch", "sweep", *own.split(), "--grid", grid, "--", *flags]
    done = subprocess.run(
        words, env=work.environ(cluster), cwd=work.folder, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def submitted(printed: str) -> str:
    match = re.search(r"^submitted (\d+): ", printed, re.MULTILINE)
    assert match, printed
    return match[1]


def shown(cluster: Cluster, work: Work, folder: Path) -> list[dict[str, Any]]:
    """The runs as `status` shows them."""
    words = [sys.executable, "-m", "launch", "status", str(folder), "--json"]
    done = subprocess.run(words, env=work.environ(cluster), cwd=work.folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def states(cluster: Cluster, work: Work, folder: Path) -> list[str]:
    return [run["state"] for run in shown(cluster, work, folder)]


def test_a_sweep_of_six_with_a_failure_and_a_kill_is_continued_by_the_same_command(
    cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    folder, data = tmp_path / "sweep", [tmp_path / f"{number}.jsonl" for number in range(6)]
    for path in data:
        shutil.copy(work.folder / "train.jsonl", path)
    grid, steps = f"train_file={','.join(map(str, data))}", 300
    array = submitted(sweep(cluster, work, folder, f"{ONE} --parallel 3 --sbatch=--hold", grid, steps))
    assert "existing  6 QUEUED\nnothing to start" in sweep(cluster, work, folder, ONE, grid, steps)
    data[3].rename(tmp_path / "moved")
    cluster.run("scontrol", "release", array)
    cluster.wait(f"{array}_1", lambda: is_training(folder / "1"))
    os.kill(cluster.ranks(cluster.show(f"{array}_1")["JobId"])[0], signal.SIGKILL)
    ends = [cluster.end(f"{array}_{number}") for number in range(6)]
    assert ends == ["COMPLETED", "FAILED", "COMPLETED", "FAILED", "COMPLETED", "COMPLETED"], cluster.report(array)
    assert states(cluster, work, folder) == ["DONE", "FAILED", "DONE", "FAILED", "DONE", "DONE"]
    assert str(data[3]) in shown(cluster, work, folder)[3]["note"]

    (tmp_path / "moved").rename(data[3])
    printed = sweep(cluster, work, folder, ONE, grid, steps)
    again = submitted(printed)
    assert f"submitted {again}: 2 runs: 1, 3\n" in printed and "existing  4 DONE\n" in printed
    assert "nothing to start" in sweep(cluster, work, folder, ONE, grid, steps), "both wait or run"
    assert [cluster.end(f"{again}_{number}") for number in (1, 3)] == ["COMPLETED"] * 2, cluster.report(again)
    assert states(cluster, work, folder) == ["DONE"] * 6
    outcomes = [jobs.outcome(folder / str(number)) for number in range(6)]
    assert all(outcome == outcomes[0] for outcome in outcomes), "all have the same data, interrupted or not"
    assert "nothing to start" in sweep(cluster, work, folder, ONE, grid, steps)


def test_the_element_with_the_arrays_job_id_is_preempted_and_resumes_while_the_other_continues(
    cluster: Cluster, work: Work, tmp_path: Path
) -> None:
    folder = tmp_path / "sweep"
    own = f"{ONE} --partition low --sbatch=--exclusive"
    array = submitted(sweep(cluster, work, folder, own, "seed=1,2", STEPS))
    cluster.wait(f"{array}_0", lambda: is_training(folder / "0") and is_training(folder / "1"))
    elements = {number: cluster.show(f"{array}_{number}") for number in (0, 1)}
    [named] = [number for number, values in elements.items() if values["JobId"] == array]
    other = 1 - named
    node, before = elements[named]["NodeList"], cluster.ranks(elements[other]["JobId"])
    flags = ("--partition=high", "--exclusive", f"--nodelist={node}", "--output=/dev/null", "--wrap=sleep 2")
    urgent = cluster.run("sbatch", "--parsable", *flags).strip()
    cluster.wait(f"{array}_{named}", lambda: cluster.restarts(f"{array}_{named}") == 1)
    assert cluster.ranks(elements[other]["JobId"]) == before != []
    assert cluster.end(urgent) == "COMPLETED"
    assert [cluster.end(f"{array}_{number}") for number in (0, 1)] == ["COMPLETED"] * 2, cluster.report(array)
    assert cluster.restarts(f"{array}_{other}") == 0
    for number in (0, 1):
        assert jobs.steps(folder / str(number)) == list(range(10, STEPS + 1, 10))
        assert jobs.status(folder / str(number))["owner"] == f"slurm:{array}_{number}"
    log = jobs.log(folder / str(named), f"{array}_{named}")
    assert "stopped by SIGTERM: requeued" in log and "resumes" in log
