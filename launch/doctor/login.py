"""Checks on the machine where the doctor is started, before its job is queued."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from job.errors import Refused
from launch.doctor.checks import Problem
from launch.plan import Plan
from launch.runs import slurm_programs
from launch.runs.slurm_programs import NoAnswerError
from launch.slurm import client, filesystems, queueing

PROGRAMS = ("sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
SINFO_SECONDS = 30.0


def tools() -> str:
    """Check that Slurm's commands are on PATH and its controller answers."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        raise Problem(f"not on PATH: {', '.join(missing)}", "log in to a login node, or load Slurm's module")
    try:
        client.my_jobs()
    except Refused as error:
        remedy = "look at scontrol ping: SLURM_CONF must name a cluster whose controller runs"
        raise Problem(str(error), remedy) from None
    return f"{', '.join(PROGRAMS)}; the controller answers"


def request(plan: Plan, partition: str, clusters: str) -> str:
    """Check that Slurm accepts the job, which requests the same nodes and GPUs as a real one."""
    with queueing.outside_any_job():
        objection, missing = queueing.objection_to(plan, partition, clusters)
    if objection and not missing:
        there = partitions(clusters)
        raise Problem(objection, f"change --partition, --nodes, --gpus, --gres or --time; there are {there}")
    place = f"partition {partition}" if partition else "the default partition"
    return f"accepted in {place}{f', but cannot start now: {missing}' if missing else ''}"


def partitions(clusters: str) -> str:
    """The partitions of the cluster, or of `clusters`, with nodes, GPUs per node and time limit."""
    command = ["sinfo", "--noheader", "--format=%R (%D nodes, %G, %l)", *client.cluster_flag(clusters)]
    try:
        done = slurm_programs.run(command, SINFO_SECONDS)
    except NoAnswerError as error:
        return f"partitions that cannot be listed: {error}"
    return "; ".join(dict.fromkeys(filter(None, map(str.strip, done.stdout.splitlines())))) or "none"


def folder(path: Path) -> str:
    """Create the folder that the nodes should see; returns no detail, because only the nodes can check it."""
    try:
        path.mkdir(parents=True)
    except OSError as error:
        raise Problem(f"{path} cannot be created: {error.strerror}", "work in a folder that you can write") from None
    return ""


def local_disk(path: Path) -> str:
    """A clause that says that `path` is on this machine's own disk; empty if that is not certain."""
    return "".join(f", which is on this machine's own disk ({kind})" for _, kind in filesystems.local([path]))


def is_workstation() -> bool:
    """Whether there is no Slurm here."""
    return not any(shutil.which(name) for name in PROGRAMS) and "SLURM_CONF" not in os.environ
