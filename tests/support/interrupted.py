"""Interrupted runs, and the comparison of their result with that of an uninterrupted one.

The processes are real, and so are the signals. Where a moment matters, the run is started by
tests/job/workers/interrupted.py, which sends the signal to itself at the requested step, batch or file: from outside,
such a moment could only be hit by chance.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tests.support import forked
from tests.support.forked import Forked
from tests.support.launch import TRAIN, Finished, environment
from tests.support.tiny import tiny_model, tiny_tokenizer

WORKER = Path(__file__).parents[1] / "job" / "workers" / "interrupted.py"
WORDS = {"color": ["red", "green", "blue"], "animal": ["cat", "dog", "horse"], "food": ["bread", "rice", "soup"]}
TIMES = ("second", "memory")
"""What two runs may differ in: names of numbers that hold one of these."""


@dataclass(frozen=True)
class World:
    """A folder with a model, tables and caches, and the flags that all its runs share."""

    folder: Path
    flags: Mapping[str, object]

    def words(self, out: Path, changes: Mapping[str, object]) -> list[str]:
        flags = {**self.flags, "output_dir": out, **changes}
        words = [[f"--{name}", *([] if value is True else [str(value)])] for name, value in flags.items()]
        return [word for pair in words for word in pair]

    def start(
        self,
        out: Path,
        *,
        processes: int = 1,
        faults: str = "",
        env: Mapping[str, str] | None = None,
        log: Path | None = None,
        **changes: object,
    ) -> Going:
        """`faults`: for tests/job/workers/interrupted.py, as `rank:moment:number:signal`, separated by spaces."""
        cpu = {"ACCELERATE_USE_CPU": "true"} if processes > 1 else {}
        log = log or self.folder / f"{out.name}.log"
        log.write_bytes(b"")
        script, ranks = (WORKER if faults else TRAIN), (processes if processes > 1 else 0)
        environ = self.environment(FAULTS=faults, **cpu, **(env or {}))
        process = forked.start(script, self.words(out, changes), environ, self.folder, log, log, ranks)
        return Going(process, out, log)

    def start_cold(self, out: Path, launcher: Sequence[str] = (sys.executable,), **how: Any) -> Going:
        """A new interpreter, below a launcher that is the test's; `preexec` as in subprocess."""
        preexec = how.pop("preexec", None)
        log = self.folder / f"{out.name}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [*launcher, str(TRAIN), *self.words(out, how)], env=self.environment(), cwd=self.folder,
                stdout=file, stderr=file, start_new_session=True, preexec_fn=preexec,
            )  # fmt: skip
        return Going(process, out, log)

    def environment(self, **extra: str) -> dict[str, str]:
        return environment(self.folder / "home", **extra)

    def run(self, out: Path, **how: Any) -> Finished:
        return self.start(out, **how).end()


@dataclass(frozen=True)
class Going:
    """A run that was started: its launcher's process, run folder and log."""

    process: subprocess.Popen[bytes] | Forked
    out: Path
    log: Path

    def end(self, seconds: float = 300) -> Finished:
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running:\n{self.log.read_text()[-4000:]}") from None
        return Finished(self.process.wait(), "", self.log.read_text())

    def until(self, condition: Callable[[], object], seconds: float = 200) -> Going:
        """Wait for `condition`; fails if the run ends first."""
        deadline = time.monotonic() + seconds
        while not condition():
            ended = self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"{'ended' if ended else 'late'}:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.005)
        return self

    def until_step(self, step: int) -> Going:
        return self.until(lambda: steps(self.out)[-1:] >= [step])

    def ranks(self) -> list[psutil.Process]:
        """The processes of a forked run of several: its launcher starts them in the order of their ranks."""
        return sorted(psutil.Process(self.process.pid).children(), key=lambda process: process.pid)

    def signal(self, number: int) -> Going:
        self.process.send_signal(number)
        return self

    def kill(self) -> None:
        """SIGKILL to all of it."""
        family = [self.process, *psutil.Process(self.process.pid).children(recursive=True)] if self.alive() else []
        for process in family:
            process.send_signal(signal.SIGKILL)
        self.process.wait(60)
        still_running([p for p in family if isinstance(p, psutil.Process)], 60)

    def alive(self) -> bool:
        return self.process.poll() is None


def make_world(folder: Path, *, rows: int = 60, evaluated: int = 40, dropout: float = 0.1, **changes: object) -> World:
    """Fifteen steps an epoch, of four rows; evaluations of many small batches; windows of three steps."""
    tiny_tokenizer(folder / "model", [word for words in WORDS.values() for word in words] + ["the", "a", "of"])
    tiny_model(folder / "model", num_labels=None, dropout=dropout, hidden=32)
    write_csv(folder / "train.csv", rows, seed=1)
    write_csv(folder / "eval.csv", evaluated, seed=2)
    flags: dict[str, object] = {
        "model_name_or_path": folder / "model", "train_file": folder / "train.csv", "validation_file":
        folder / "eval.csv", "learning_rate": 3e-2, "train_batch_size": 4, "num_train_epochs": 3, "logging_steps": 3,
        "lr_scheduler_type": "cosine", "eval_strategy": "steps", "eval_steps": 5, "early_stopping_patience": 4,
        "max_tokens_per_device": 64, "eval_max_tokens_per_device": 64,
    }  # fmt: skip
    return World(folder, {**flags, **changes})


def write_csv(path: Path, rows: int, seed: int) -> None:
    """Rows whose class can be learnt, of very different lengths; every eighth label is a random one."""
    rng = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "category"])
        for number in range(rows):
            label = rng.choice(sorted(WORDS))
            text = ["the", "a", "of"] * rng.randint(0, 5) + rng.choices(WORDS[label], k=3)
            writer.writerow([number, " ".join(text), rng.choice(sorted(WORDS)) if number % 8 == 7 else label])


def differences(reference: Path, out: Path) -> list[str]:
    """What differs, in any bit, between a finished run and the reference; times and memory excluded."""
    different = [name for name in ("model/model.safetensors", "predictions.parquet")
             if digest(reference / name) != digest(out / name)]  # fmt: skip
    different += ["metrics.jsonl"] * (metrics(reference) != metrics(out))
    results = [timeless(json.loads((folder / "results.json").read_text())) for folder in (reference, out)]
    return different + ["results.json"] * (results[0] != results[1])


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def metrics(out: Path) -> list[dict[str, Any]]:
    return [timeless(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()]


def timeless(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: timeless(v) for k, v in value.items() if not any(word in k for word in TIMES)}


def steps(out: Path) -> list[int]:
    """The steps in metrics.jsonl; its last line may be incomplete."""
    if not (out / "metrics.jsonl").exists():
        return []
    lines = (out / "metrics.jsonl").read_text().split("\n")[:-1]
    return [json.loads(line)["step"] for line in lines]


def checkpoints(out: Path) -> list[int]:
    """The steps of the checkpoints that are there."""
    return sorted(int(path.name.removeprefix("step-")) for path in (out / "checkpoints").glob("step-*"))


def status(out: Path) -> dict[str, Any]:
    return json.loads((out / "status.json").read_text())


def copied(out: Path, name: str) -> Path:
    """A copy of a run folder, to resume from more than once."""
    return Path(shutil.copytree(out, out.with_name(name)))


def edit_checkpoint(folder: Path, file: str, change: Callable[[Path], None]) -> None:
    """Change a file of a checkpoint, and update its checksum in the manifest."""
    change(folder / file)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][file] = {"bytes": (folder / file).stat().st_size, "sha256": digest(folder / file)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def still_running(family: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Those that have not ended after a while. One that waits for its new parent, which may be slow, has ended."""
    until = time.monotonic() + seconds
    while True:
        left = [p for p in family if p.is_running() and _status(p) != psutil.STATUS_ZOMBIE]
        if not left or time.monotonic() > until:
            return left
        time.sleep(0.05)


def _status(process: psutil.Process) -> str:
    try:
        return process.status()
    except psutil.NoSuchProcess:
        return psutil.STATUS_ZOMBIE


def is_root() -> bool:
    return os.geteuid() == 0
