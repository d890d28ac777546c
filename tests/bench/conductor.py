"""Starts the contestants of a workload, gives them turns, and collects their reports.

All are in memory, one computes: each waits in a blocking read until the conductor sends it a line. In every round each
contestant has one turn, so that a machine that slows down for a minute slows them all; only numbers of one round
are compared. Imports no torch: the conductor must not hold memory that its children would be charged with.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from job.runtime import environment
from tests.bench.plan import Entry, Plan, Workload

ROOT = Path(__file__).resolve().parents[2]
Message = dict[str, Any]
Say = Callable[[str], None]


class Contestant:
    """A worker process, and what it has reported so far.

    Attributes:
        turns: of training, including the trial of an entry that has rivals for its row.
        rounds: what it reported for each, without the trial.
    """

    def __init__(self, entry: Entry, plan: Plan, work: Path, log: Path, has_rivals: bool = False) -> None:
        self.entry, self._log, self.turns = entry, log, entry.rounds + has_rivals
        self.first: Message = {}
        self.rounds: list[Message] = []
        self.evaluations: list[Message] = []
        self.end: Message = {}
        incoming, outgoing = os.pipe()
        spec = {**asdict(entry), "rounds": self.turns, "work": str(work), "warmup": plan.warmup, "out": outgoing}
        spec["started"] = time.time()
        with log.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.bench.worker", json.dumps(spec)],
                stdin=subprocess.PIPE, stdout=file, stderr=subprocess.STDOUT, pass_fds=(outgoing,),
                cwd=ROOT, env={**child_environment(plan, work), **own_environment(entry)}, start_new_session=True,
            )  # fmt: skip
        os.close(outgoing)
        self._messages = os.fdopen(incoming, encoding="utf-8")

    def receive(self, kind: str) -> Message:
        """The next message, which must be of this kind."""
        line = self._messages.readline()
        if not line:
            self._process.wait(60)  # it has closed the pipe and is about to say why
        message = json.loads(line) if line else {"kind": "nothing"}
        if message["kind"] != kind:
            log = "\n".join(self._log.read_text(errors="replace").splitlines()[-30:])
            raise RuntimeError(f"{self.entry.name} ({self.entry.settings}): {message} where {kind} was due\n{log}")
        return message

    def turn(self, kind: str) -> Message:
        """Let it compute until it reports."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()
        return self.receive(kind)

    def finish(self) -> None:
        self.end = self.turn("end")
        self._process.wait()

    def stop(self) -> None:
        """End it and the processes it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    @property
    def is_there(self) -> bool:
        return self._process.poll() is None

    def result(self) -> Message:
        return {"entry": asdict(self.entry), "turns": self.turns, "first": self.first, "rounds": self.rounds,
                "evaluations": self.evaluations, "end": self.end}  # fmt: skip


def child_environment(plan: Plan, folder: Path) -> dict[str, str]:
    """The same for all: every core, offline, one cache, and no GPU unless one is requested."""
    fixed = {
        "HF_DATASETS_CACHE": str(folder / "cache"),
        "OMP_NUM_THREADS": str(environment.cores()),
        "TOKENIZERS_PARALLELISM": "false",
    }
    offline = dict.fromkeys(environment.OFFLINE, "1")
    hidden = {} if plan.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **environment.QUIET, **fixed, **offline, **hidden}


def own_environment(entry: Entry) -> dict[str, str]:
    """What job/train.py sets for itself before it starts; ours is called as a function here."""
    return {"GLIBC_TUNABLES": environment.ALLOCATOR} if entry.runs == "ours" and entry.allocator else {}


def run(plan: Plan, workload: Workload, folder: Path, cache: Path, say: Say) -> Message:
    """Everything measured in one workload: {"work", "entries", "losers", "seconds"}."""
    begun = time.monotonic()
    prepare(plan, workload, folder, cache)
    say(f"{workload.name}: prepared in {time.monotonic() - begun:.0f} s")
    with running(plan, workload, folder, say) as contestants:
        left = [contestant for contestant in contestants if contestant.is_there]
        rounds(left, say)
        evaluations(left, say)
        for contestant in left:
            contestant.finish()
            say(f"  {contestant.entry.name}: at its end")
    say(f"{workload.name}: done after {time.monotonic() - begun:.0f} s")
    work = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    del work["folder"]  # a temporary one
    return {
        "work": work,
        "entries": {contestant.entry.name: contestant.result() for contestant in left},
        "losers": [contestant.result() for contestant in contestants if contestant not in left],
        "seconds": time.monotonic() - begun,
    }


def prepare(plan: Plan, workload: Workload, folder: Path, cache: Path) -> None:
    folder.mkdir(parents=True)
    longest = max(workload.entries, key=lambda entry: entry.steps * entry.rounds)
    spec = {
        "folder": str(folder), "cache": str(cache), "workload": workload.name, "size": plan.size,
        "rows": workload.rows, "evaluation_rows": workload.evaluation_rows, "batch": plan.batch,
        "learning_rate": plan.learning_rate, "max_length": plan.max_length,
        "warmup": plan.warmup, "turn": plan.warmup + longest.steps, "rounds": longest.rounds,
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.bench.prepare", json.dumps(spec)]
    subprocess.run(command, cwd=ROOT, env=child_environment(plan, folder), check=True)


@contextmanager
def running(plan: Plan, workload: Workload, folder: Path, say: Say) -> Iterator[list[Contestant]]:
    """The contestants, each after its first step, without those that lost their trial; stopped at the end."""
    contestants: list[Contestant] = []
    names = Counter(entry.name for entry in workload.entries)
    try:
        for number, entry in enumerate(workload.entries):
            log = folder / f"{number}.log"
            contestants.append(Contestant(entry, plan, folder, log, names[entry.name] > 1))
            if not plan.together:
                start(contestants[-1], say)
            rivals = [contestant for contestant in contestants if contestant.entry.name == entry.name]
            if len(rivals) == names[entry.name] > 1:
                trial(rivals, say)
        if plan.together:
            for contestant in contestants:
                start(contestant, say)
        yield contestants
    finally:
        for contestant in contestants:
            contestant.stop()


def start(contestant: Contestant, say: Say) -> None:
    contestant.first = contestant.receive("first")
    say(f"  {contestant.entry.name}: first step after {contestant.first['seconds']:.1f} s")


def trial(rivals: Sequence[Contestant], say: Say) -> None:
    """A turn for each; the fastest stays. Its trial is not counted, because it was selected by it."""
    for contestant in rivals:
        contestant.rounds.append(contestant.turn("train"))
        say(f"  trial  {contestant.entry.name}: {shown(contestant)}")
    best = min(rivals, key=lambda contestant: contestant.rounds[0]["seconds"] / contestant.rounds[0]["steps"])
    best.rounds.clear()
    for contestant in rivals:
        if contestant is not best:
            contestant.stop()


def rounds(contestants: Sequence[Contestant], say: Say) -> None:
    """Turns of training, for contestants that train."""
    for number in range(max(contestant.entry.rounds for contestant in contestants)):
        for contestant in contestants:
            if number < contestant.entry.rounds:
                contestant.rounds.append(contestant.turn("train"))
                say(f"  round {number + 1}  {contestant.entry.name}: {shown(contestant)}")


def shown(contestant: Contestant) -> str:
    last = contestant.rounds[-1]
    if "seconds" not in last:
        return ", ".join(f"{kind} {rate / 1e9:.0f} GFLOP/s" for kind, rate in last.items() if kind != "kind")
    return f"{last['seconds'] / last['steps']:.2f} s a step, {contestant.entry.settings}"


def evaluations(contestants: Sequence[Contestant], say: Say) -> None:
    """Turns of evaluation, for contestants that evaluate."""
    for number in range(max(contestant.entry.evaluations for contestant in contestants)):
        for contestant in contestants:
            if number < contestant.entry.evaluations:
                last = contestant.turn("evaluation")
                contestant.evaluations.append(last)
                say(f"  evaluation {number + 1}  {contestant.entry.name}: {last['examples'] / last['seconds']:.1f}/s")
