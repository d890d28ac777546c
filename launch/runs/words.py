"""Slurm's words and exit codes, in plain English."""

from __future__ import annotations

import signal
from dataclasses import dataclass


@dataclass(frozen=True)
class Pending:
    """Why a job waits."""

    text: str
    never_starts: bool = False
    """Whether it waits for ever unless somebody changes the job or the cluster's limits."""

    def __str__(self) -> str:
        return f"never starts: {self.text}" if self.never_starts else self.text


PENDING = {
    "None": Pending("waits for Slurm's next scheduling round"),
    "Priority": Pending("waits behind jobs of higher priority"),
    "Resources": Pending("waits for free resources, first in line"),
    "BeginTime": Pending("waits for its begin time (a requeued job waits two minutes)"),
    "Dependency": Pending("waits for the jobs that it depends on"),
    "DependencyNeverSatisfied": Pending("a job that it depends on failed", True),
    "JobHeldUser": Pending("held by its user: scontrol release frees it", True),
    "JobHeldAdmin": Pending("held by an administrator", True),
    "JobArrayTaskLimit": Pending("waits for other tasks of its array"),
    "Licenses": Pending("waits for a licence"),
    "Reservation": Pending("waits for its reservation"),
    "Cleaning": Pending("its last start is still being cleaned up"),
    "PartitionTimeLimit": Pending("its time limit is above the partition's: submit again with a lower --time", True),
    "PartitionNodeLimit": Pending("the partition allows no job of so many nodes: lower --nodes", True),
    "PartitionDown": Pending("its partition is down: an administrator has to start it"),
    "PartitionInactive": Pending("its partition is inactive: an administrator has to start it"),
    "BadConstraints": Pending("no node has what it asks for: look at --constraint, --gpus and --sbatch", True),
    "InvalidAccount": Pending("its account is not valid: look at --account", True),
    "InvalidQOS": Pending("its QOS is not valid: look at --qos", True),
    "NodeDown": Pending("a node that it needs is down"),
    "launch failed requeued held": Pending("a node could not start it, and Slurm holds it: scontrol release", True),
    "job requeued in held state": Pending("it was requeued and is held: scontrol release frees it", True),
}
STATES = {
    "BOOT_FAIL": "a node did not boot",
    "CANCELLED": "cancelled",
    "DEADLINE": "its deadline passed",
    "FAILED": "failed",
    "NODE_FAIL": "a node failed",
    "OUT_OF_MEMORY": "out of memory: more than --mem allows",
    "PREEMPTED": "preempted",
    "TIMEOUT": "time limit reached",
}


def pending(reason: str) -> Pending:
    """What squeue's reason for a pending job means; one that is not known is shown as it is."""
    if found := PENDING.get(reason):
        return found
    if reason.startswith(("ReqNodeNotAvail", "Nodes required for job are DOWN")):
        return Pending("nodes that it needs are down, drained or reserved")
    if reason.startswith(("QOS", "Assoc", "MaxJob")):
        if "PerJob" in reason or "MinGRES" in reason or "MinCpu" in reason or "MaxWall" in reason:
            return Pending(f"it asks for more or less than one job may have ({reason})", True)
        return Pending(f"waits for other jobs of the user, account or QOS to end ({reason})")
    return Pending(f"waits ({reason})")


def exit_code(code: int) -> str:
    """What an exit code of the job process says."""
    known = {
        0: "finished",
        2: "rejected: a flag, file, column or label is wrong",
        3: "needs a human: there are checkpoints and none can be used",
        75: "stopped on request after a checkpoint",
        137: "killed by SIGKILL, most likely out of memory",
        139: "crashed with a segmentation fault",
    }
    if code in known:
        return known[code]
    if code > 128:
        try:
            return f"killed by {signal.Signals(code - 128).name}"
        except ValueError:
            pass
    return "failed"
