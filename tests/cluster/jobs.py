"""A small job with random weights, submitted the way users do, and what it left."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet

from tests.cluster.slurm import Cluster
from tests.support.launch import ROOT
from tests.support.tiny import tiny_model, tiny_tokenizer

WORDS = ("good", "bad", "dull", "fine", "long", "short", "film", "book", "song", "play")

STEPS = 800
"""Long enough to be interrupted on a fast machine, short enough to end on a slow one."""


@dataclass(frozen=True)
class Work:
    """A folder with a model and data."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Work:
        tiny_tokenizer(folder / "model", WORDS)
        tiny_model(folder / "model", hidden=32, num_labels=None)
        rng = random.Random(0)
        for name, rows in (("train", 400), ("validation", 101)):
            texts = [" ".join(rng.choices(WORDS, k=rng.randint(2, 20))) for _ in range(rows)]
            lines = [json.dumps({"text": text, "label": int("good" in text)}) for text in texts]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="ascii")
        return cls(folder)

    def flags(self, run: Path, steps: int, *more: str) -> list[str]:
        """The job's flags, for `steps` steps in the run folder `run`."""
        values = {
            "model_name_or_path": self.folder / "model",
            "train_file": self.folder / "train.jsonl",
            "validation_file": self.folder / "validation.jsonl",
            "train_batch_size": 16,
            "learning_rate": 1e-3,
            "max_steps": steps,
            "eval_strategy": "no",
            "logging_steps": 10,
            "output_dir": run,
        }
        return [*(str(word) for name, value in values.items() for word in (f"--{name}", value)), *more]

    def submit(self, cluster: Cluster, own: str, job: list[str], *, root: Path = ROOT, **environ: str) -> str:
        """The id of a job that `python -m launch submit` queued; `own` holds the launcher's flags."""
        done = self.try_to_submit(cluster, own, job, root=root, **environ)
        assert done.returncode == 0, done.stderr
        match = re.match(r"submitted (\d+)\n", done.stdout)
        assert match, done.stdout
        return match[1]

    def try_to_submit(
        self, cluster: Cluster, own: str, job: list[str], *, root: Path = ROOT, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        words, env = self.command(own, job), self.environ(cluster, environ, root)
        return subprocess.run(words, env=env, cwd=self.folder, capture_output=True, text=True, timeout=120)

    def start_submit(self, cluster: Cluster, own: str, job: list[str], **environ: str) -> subprocess.Popen[str]:
        """The same, started in a process group of its own."""
        return subprocess.Popen(
            self.command(own, job),
            env=self.environ(cluster, environ),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            process_group=0,
        )

    def command(self, own: str, job: list[str]) -> list[str]:
        return [sys.executable, "-m", "launch", "submit", *own.split(), "--", *job]

    def environ(self, cluster: Cluster, more: Mapping[str, str] | None = None, root: Path = ROOT) -> dict[str, str]:
        offline = {"HF_HOME": str(self.folder / "hf"), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
        return {**cluster.environ, **offline, **(more or {})}


def status(run: Path) -> dict[str, object]:
    return json.loads((run / "status.json").read_text(encoding="utf-8"))


def log(run: Path, job: str, kind: str = "err", rank: int = 0) -> str:
    path = run / "jobs" / job / f"{job}_{rank}_log.{kind}"
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def steps(run: Path) -> list[int]:
    """The training steps in metrics.jsonl, in the order in which they were written."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [row["step"] for row in map(json.loads, lines) if row["split"] == "train"]


def is_training(run: Path) -> bool:
    return max(steps(run), default=0) >= 20


def outcome(run: Path) -> tuple[object, object]:
    """What two runs must have in common: every prediction with its probabilities, and the scores."""
    table = pyarrow.parquet.read_table(run / "predictions.parquet").to_pydict()
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return table, results["eval"]
