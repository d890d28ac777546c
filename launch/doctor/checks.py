"""The checks, in the order in which a job would encounter the problems, and their results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

OK, FAILED, SKIPPED = "ok", "failed", "-"


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    promise: str
    """What is true if the check passes."""


@dataclass(frozen=True)
class Finding:
    """The result of a check on one node or in one process."""

    check: str
    state: str
    detail: str
    remedy: str = ""
    place: str = ""
    """The node; empty for the machine where the doctor was started."""


TOOLS = Check("tools", "Slurm's commands are on PATH and its controller answers")
REQUEST = Check("request", "Slurm accepts a job of these nodes, processes and GPUs in this partition")
START = Check("job", "the job starts, and ends within its bound")
FOLDER = Check("shared folder", "the nodes see the folder of the runs, and each other's files in it")
ENVIRONMENT = Check("environment", "the Python environment or the image is there, and torch can be imported")
NAMES = Check("names", "the first node's name resolves on the others")
GROUP = Check("process group", "the processes find each other")
REDUCE = Check("all-reduce", "a sum over all processes is correct")
GPU = Check("GPU", "each process has a GPU that torch can use")
CLOCK = Check("clock", "the clocks agree to 5 seconds")
DISK = Check("disk", "runs, HF_HOME and TMPDIR can be written and have 1 GB free")
SHM = Check("shm", "/dev/shm has 128 MB free")

CLOCK_SECONDS = 5.0
CLOCK_REMEDY = (
    "synchronize it by NTP: with a wrong clock Slurm rejects credentials and `status` shows running jobs as lost"
)

CLUSTER = (TOOLS, REQUEST, START, FOLDER, ENVIRONMENT, NAMES, GROUP, REDUCE, GPU, CLOCK, DISK, SHM)
RANK_CHECKS = (ENVIRONMENT, NAMES, GROUP, REDUCE, GPU, CLOCK, DISK, SHM)
"""Checks that every process makes."""
HERE = Check("folder", "the folder of the runs can be written")
LOCAL = (HERE, ENVIRONMENT, GROUP, REDUCE, GPU, DISK, SHM)


class Problem(Exception):
    """A check failed, with what is wrong and the remedy."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail, self.remedy = " ".join(detail.split()), remedy


@dataclass(frozen=True)
class Line:
    """The result of one check over all nodes and processes."""

    check: Check
    state: str
    detail: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        return {"check": self.check.name, "promise": self.check.promise, "state": self.state, "detail": self.detail,
                "remedy": self.remedy}  # fmt: skip


def lines(checks: Sequence[Check], findings: Iterable[Finding], expected: Mapping[str, int]) -> list[Line]:
    """One line per check, in the order of `checks`.

    Args:
        checks: the checks of this report.
        findings: results from all nodes and processes.
        expected: name of a check -> number of results that it should have; default 1.
    """
    by_check: dict[str, list[Finding]] = {check.name: [] for check in checks}
    for finding in findings:
        by_check.get(finding.check, []).append(finding)
    # A failing process ends the others, which may not have finished an earlier check.
    first_failed = next((check.name for check in checks if any(f.state == FAILED for f in by_check[check.name])), "")
    report: list[Line] = []
    for check in checks:
        line = _line(check, by_check[check.name], expected.get(check.name, 1), first_failed)
        report.append(line)
        first_failed = first_failed or (check.name if line.state == FAILED else "")
    return report


def _line(check: Check, findings: Sequence[Finding], expected: int, first_failed: str) -> Line:
    failed = [finding for finding in findings if finding.state == FAILED]
    if failed:
        return Line(check, FAILED, _by_node(failed), failed[0].remedy)
    passed = [finding for finding in findings if finding.state == OK]
    if len(passed) >= expected:
        return Line(check, OK, _merged(passed))
    if first_failed:
        return Line(check, SKIPPED, f"not checked, as {first_failed} failed")
    missing = f"{expected - len(passed)} of {expected} processes did not answer"
    return Line(check, FAILED, missing, "look at the end of their logs")


def _merged(findings: Sequence[Finding]) -> str:
    """The detail that all findings share, else the details by node."""
    details = {finding.detail for finding in findings}
    nodes = sorted({finding.place for finding in findings if finding.place})
    if len(details) == 1 and nodes:
        return f"{findings[0].detail} (on {', '.join(nodes)})"
    return _by_node(findings)


def _by_node(findings: Sequence[Finding]) -> str:
    """Each detail once, after the nodes that report it."""
    nodes: dict[str, set[str]] = {}
    for finding in findings:
        nodes.setdefault(finding.detail, set()).update(filter(None, [finding.place]))
    return "; ".join(f"{', '.join(sorted(names))}: {detail}" if names else detail for detail, names in nodes.items())
