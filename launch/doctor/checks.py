"""What is checked, in the order in which a job would meet the problems, and what was found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

OK, FAILED, SKIPPED = "ok", "failed", "-"


@dataclass(frozen=True)
class Check:
    """One line of the report."""

    name: str
    promise: str
    """What holds where it is ok."""


@dataclass(frozen=True)
class Finding:
    """What one machine or process found."""

    check: str
    state: str
    detail: str
    remedy: str = ""
    place: str = ""
    """Node, or nothing for the machine where the doctor was started."""


TOOLS = Check("tools", "Slurm's commands are on PATH and its controller answers")
REQUEST = Check("request", "Slurm takes a job of these nodes, processes and GPUs in this partition")
START = Check("job", "the job starts, and ends within its bound")
FOLDER = Check("shared folder", "the nodes see the folder of the runs, and each other's files in it")
ENVIRONMENT = Check("environment", "the Python environment or the image is there, and torch can be imported")
NAMES = Check("names", "the first node's name resolves on the others")
GROUP = Check("process group", "the processes find each other")
REDUCE = Check("all-reduce", "a sum over all processes is right")
GPU = Check("GPU", "each process has a GPU that torch can use")
CLOCK = Check("clock", "the clocks agree to 5 seconds")
DISK = Check("disk", "runs, HF_HOME and TMPDIR can be written and have 1 GB free")
SHM = Check("shm", "/dev/shm has 128 MB free")

CLOCK_SECONDS = 5.0
CLOCK_REMEDY = "have it set by NTP: Slurm rejects credentials of another time, and `status` takes running jobs for lost"

CLUSTER = (TOOLS, REQUEST, START, FOLDER, ENVIRONMENT, NAMES, GROUP, REDUCE, GPU, CLOCK, DISK, SHM)
OF_RANKS = (ENVIRONMENT, NAMES, GROUP, REDUCE, GPU, CLOCK, DISK, SHM)
"""Those that every process answers."""
HERE = Check("folder", "the folder of the runs can be written")
LOCAL = (HERE, ENVIRONMENT, GROUP, REDUCE, GPU, DISK, SHM)


class Problem(Exception):
    """A check failed: what is wrong, and the remedy."""

    def __init__(self, detail: str, remedy: str) -> None:
        super().__init__(detail)
        self.detail, self.remedy = " ".join(detail.split()), remedy


@dataclass(frozen=True)
class Line:
    """The outcome of one check over all machines and processes."""

    check: Check
    state: str
    detail: str
    remedy: str = ""

    def as_json(self) -> dict[str, str]:
        return {"check": self.check.name, "promise": self.check.promise, "state": self.state, "detail": self.detail,
                "remedy": self.remedy}  # fmt: skip


def lines(checks: Sequence[Check], found: Iterable[Finding], expected: Mapping[str, int]) -> list[Line]:
    """One line a check, in order.

    Args:
        checks: those of this report.
        found: what machines and processes found.
        expected: name of a check -> how many processes report on it; 1 where it is not named.
    """
    by_check: dict[str, list[Finding]] = {check.name: [] for check in checks}
    for finding in found:
        by_check.get(finding.check, []).append(finding)
    # A process that fails ends the others, which may have been at an earlier check.
    culprit = next((check.name for check in checks if any(f.state == FAILED for f in by_check[check.name])), "")
    made: list[Line] = []
    for check in checks:
        line = _line(check, by_check[check.name], expected.get(check.name, 1), culprit)
        made.append(line)
        culprit = culprit or (check.name if line.state == FAILED else "")
    return made


def _line(check: Check, found: Sequence[Finding], expected: int, culprit: str) -> Line:
    failed = [finding for finding in found if finding.state == FAILED]
    if failed:
        return Line(check, FAILED, _by_node(failed), failed[0].remedy)
    done = [finding for finding in found if finding.state == OK]
    if len(done) >= expected:
        return Line(check, OK, _together(done))
    if culprit:
        return Line(check, SKIPPED, f"not checked, as {culprit} failed")
    silent = f"{expected - len(done)} of {expected} processes did not answer"
    return Line(check, FAILED, silent, "look at the end of their logs")


def _together(found: Sequence[Finding]) -> str:
    """What all say, or what each node says."""
    details = {finding.detail for finding in found}
    nodes = sorted({finding.place for finding in found if finding.place})
    if len(details) == 1 and nodes:
        return f"{found[0].detail} (on {', '.join(nodes)})"
    return _by_node(found)


def _by_node(found: Sequence[Finding]) -> str:
    """Each detail once, after the nodes that report it."""
    nodes: dict[str, set[str]] = {}
    for finding in found:
        nodes.setdefault(finding.detail, set()).update(filter(None, [finding.place]))
    return "; ".join(f"{', '.join(sorted(names))}: {detail}" if names else detail for detail, names in nodes.items())
