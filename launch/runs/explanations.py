"""Explanations of Slurm's reasons and states, and of exit codes."""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass


@dataclass(frozen=True)
class Pending:
    """Why a job is pending."""

    text: str
    never_starts: bool = False
    """Whether it will not start unless the job or the cluster's limits change."""

    def __str__(self) -> str:
        return f"never starts: {self.text}" if self.never_starts else self.text


PENDING = {
    "None": Pending("waits for Slurm's next scheduling round"),
    "Priority": Pending("waits for jobs with higher priority"),
    "Resources": Pending("waits for free resources, next in line"),
    "BeginTime": Pending("waits for its begin time (two minutes for a requeued job)"),
    "Dependency": Pending("waits for the jobs that it depends on"),
    "DependencyNeverSatisfied": Pending("a job that it depends on failed", True),
    "JobHeldUser": Pending("held by its user: release it with scontrol release", True),
    "JobHeldAdmin": Pending("held by an administrator", True),
    "JobArrayTaskLimit": Pending("waits for other tasks of its array"),
    "Licenses": Pending("waits for a licence"),
    "Reservation": Pending("waits for its reservation"),
    "Cleaning": Pending("its previous start is still being cleaned up"),
    "PartitionTimeLimit": Pending("its time limit is above the partition's: submit it again with a lower --time", True),
    "PartitionNodeLimit": Pending("more nodes than the partition allows: lower --nodes", True),
    "PartitionDown": Pending("its partition is down: ask an administrator"),
    "PartitionInactive": Pending("its partition is inactive: ask an administrator"),
    "BadConstraints": Pending("no node satisfies its request: check --constraint, --gpus and --sbatch", True),
    "InvalidAccount": Pending("its account is not valid: check --account", True),
    "InvalidQOS": Pending("its QOS is not valid: check --qos", True),
    "AccountNotAllowed": Pending("its account may not use the partition: check --account and --partition", True),
    "QOSNotAllowed": Pending("its QOS is not allowed in the partition: check --qos and --partition", True),
    "MaxMemPerLimit": Pending("more memory than the partition allows: check --sbatch", True),
    "ReservationDeleted": Pending("its reservation was deleted: check --sbatch", True),
    "DeadLine": Pending("its deadline cannot be met: check --sbatch", True),
    "NodeDown": Pending("a node that it needs is down"),
    "launch failed requeued held": Pending(
        "a node could not start it, and Slurm holds it: release it with scontrol release", True
    ),
    "user env retrieval failed requeued held": Pending(
        "a node could not read the user's environment, and Slurm holds it: release it with scontrol release", True
    ),
    "JobHoldMaxRequeue": Pending("it was requeued too often and is held: release it with scontrol release", True),
    "job requeued in held state": Pending("it was requeued and is held: release it with scontrol release", True),
}
OF_A_SINGLE_JOB = re.compile("PerJob|PerNode|MinGRES|MinCpu|MinMemory|MaxWall")
"""In the reasons for limits on a single job, which the end of other jobs does not change."""
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
    """The explanation of squeue's reason for a pending job; an unknown reason is shown as it is."""
    if found := PENDING.get(reason):
        return found
    if reason.startswith(("ReqNodeNotAvail", "Nodes required for job are DOWN")):
        return Pending("nodes that it needs are down, drained or reserved")
    if reason.startswith(("QOS", "Assoc", "MaxJob")):
        if "Minutes" in reason and "PerJob" not in reason and "Run" not in reason:
            return Pending(f"the account or QOS has used up its computing time ({reason})")
        if OF_A_SINGLE_JOB.search(reason):
            return Pending(f"it requests more or less than a single job may have ({reason})", True)
        return Pending(f"waits for other jobs of the user, account or QOS to end ({reason})")
    return Pending(f"waits ({reason})")


def exit_code(code: int) -> str:
    """The explanation of an exit code of the job."""
    known = {
        0: "finished",
        2: "rejected: a flag, file, column or label is wrong",
        3: "needs a human: there are checkpoints but none can be used",
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
