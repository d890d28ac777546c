"""`make test-gpu`: what only a GPU can show. Prints a table of the results; exits with 0 only if all passed.

    python -m tests.gpu                          # on a GPU: all cases
    python -m tests.gpu --only kernels memory    # some of them
    python -m tests.gpu --device cpu             # the wiring, on a machine without a GPU

Each case is a process of its own (cases.py), so that an illegal memory access or a hang ends that case only. On a GPU a
case that did not run counts as failed; on the CPU those that need a GPU do not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from tests.gpu.plan import CASES, Case

ROOT = Path(__file__).resolve().parents[2]
HELD, FAILED, TIMED_OUT, NOT_RUN = "held", "FAILED", "timed out", "not run"
SHOWN = {HELD: 8, FAILED: 30, TIMED_OUT: 15}
"""Last lines printed of a case's log; the whole of it is in log.txt."""


@dataclass(frozen=True)
class Outcome:
    """How a case ended; `log` is what it printed."""

    case: Case
    state: str
    seconds: float = 0.0
    log: str = ""


class Conductor:
    """Runs cases as processes, within a common limit of time."""

    def __init__(self, device: str, work: Path, seconds: float) -> None:
        self._device, self._work, self._ends = device, work, time.monotonic() + seconds

    def can_run(self, case: Case) -> bool:
        enough = self._ends - time.monotonic() >= case.least_seconds
        return enough and (self._device == "cuda" or not case.needs_gpu)

    def run(self, case: Case) -> Outcome:
        if not self.can_run(case):
            return Outcome(case, NOT_RUN)
        begun = time.monotonic()
        command = [sys.executable, "-m", "tests.gpu.cases", case.name, "--device", self._device, "--work", self._work]
        log = self._work / f"{case.name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                list(map(str, command)), cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
            try:
                state = FAILED if process.wait(min(case.seconds, self._ends - begun)) else HELD
            except subprocess.TimeoutExpired:
                state = TIMED_OUT
            finally:
                _kill_group(process)
        printed = log.read_text(errors="replace") + ("" if state == HELD else self._ends_of_job_logs(case))
        outcome = Outcome(case, state, time.monotonic() - begun, printed)
        show(outcome)
        return outcome

    def _ends_of_job_logs(self, case: Case) -> str:
        """What the jobs of a case printed last: they may have been ended before the case could print it."""
        logs = sorted((self._work / case.name).glob("*.log"))
        return "".join(f"-- {log.name}\n{log.read_text(errors='replace')[-1500:]}\n" for log in logs)


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End the case and every process that it started, also those that outlived it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def show(outcome: Outcome) -> None:
    lines = outcome.log.splitlines()[-SHOWN[outcome.state] :]
    print(f"-- {outcome.case.name}: {outcome.state} after {outcome.seconds:.0f} s", *lines, sep="\n   ", flush=True)


def table(outcomes: Sequence[Outcome]) -> str:
    width = max(len(outcome.case.name) for outcome in outcomes)
    rows = (f"{o.case.name:{width}}  {o.state:9}  {o.seconds:4.0f} s  {o.case.promise}" for o in outcomes)
    return "\n".join(rows)


def main(argv: Sequence[str]) -> int:
    options = arguments(argv)
    chosen = [case for case in CASES if options.only is None or case.name in options.only]
    with tempfile.TemporaryDirectory(prefix="muster-gpu-") as scratch:
        conductor = Conductor(options.device, Path(scratch), options.seconds)
        if any(map(conductor.can_run, chosen)):
            world = [sys.executable, "-m", "tests.gpu.world", str(Path(scratch, "world"))]
            subprocess.run(world, cwd=ROOT, check=True)
        outcomes: list[Outcome] = []
        for outcome in run_all(conductor, chosen, options.parallel):
            outcomes.append(outcome)
            if options.output:  # after each, as a limit of the machine may end all of this
                write(outcomes, options.output)
    print(table(outcomes), flush=True)
    excused = {HELD} if options.device == "cuda" else {HELD, NOT_RUN}
    return int(any(outcome.state not in excused for outcome in outcomes))


def run_all(conductor: Conductor, chosen: Sequence[Case], parallel: int) -> Iterator[Outcome]:
    """The outcomes as they come, those of cases that must run alone first."""
    yield from (conductor.run(case) for case in chosen if case.alone)
    with ThreadPoolExecutor(parallel) as threads:
        started = [threads.submit(conductor.run, case) for case in chosen if not case.alone]
        yield from (future.result() for future in as_completed(started))


def write(outcomes: Sequence[Outcome], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    facts = {o.case.name: {"state": o.state, "seconds": round(o.seconds, 1)} for o in outcomes}
    (folder / "cases.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    (folder / "table.txt").write_text(table(outcomes) + "\n", encoding="utf-8")
    logs = (f"==== {o.case.name}: {o.state}\n{o.log}\n" for o in outcomes)
    (folder / "log.txt").write_text("".join(logs), encoding="utf-8")


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--only", nargs="+", choices=[case.name for case in CASES])
    parser.add_argument("--output", type=Path, help="folder for cases.json, table.txt and log.txt")
    parser.add_argument("--seconds", type=float, default=470, help="for all cases; those left over do not run")
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--parallel", type=int, default=max(2, cores // 5), help="cases at a time")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
