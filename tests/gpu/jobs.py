"""Runs of the job by its command line, with something watched or broken (watch.py), and what they wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
WATCH = ("-m", "tests.gpu.watch")
SMALL = ("--max_steps", "4", "--train_batch_size", "8", "--max_train_samples", "64", "--max_eval_samples", "16")
"""A dry run on a CPU does little."""


@dataclass(frozen=True)
class Setting:
    """What the runs of a case share.

    Attributes:
        device: cuda or cpu.
        world: texts and models.
        work: folder of this case.
    """

    device: str
    world: Path
    work: Path

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"


class Run:
    """What a run left in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def losses(self) -> list[float]:
        """Of each training step."""
        lines = map(json.loads, (self.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        return [line["loss"] for line in lines if line["split"] == "train"]

    @property
    def probabilities(self) -> np.ndarray:
        """[rows, classes], of the evaluation set."""
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(self.folder / "predictions.parquet").to_pandas()
        names = [name for name in table.columns if name not in ("index", "label", "prediction")]
        return table[names].to_numpy(dtype=np.float64)

    @property
    def manifest(self) -> dict[str, object]:
        return json.loads((self.folder / "manifest.json").read_text(encoding="utf-8"))


class Job(Run):
    """A run of job/train.py that has been started."""

    def __init__(
        self,
        setting: Setting,
        name: str,
        *flags: str,
        watch: Sequence[str] = (),
        processes: int = 0,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """`watch`: what tests.gpu.watch changes in it. `processes`: under torchrun; 0 without it."""
        super().__init__(setting.work / name)
        launcher = (*TORCHRUN, str(processes)) if processes else ()
        given = [*_flags(setting), "--output_dir", str(self.folder), *flags]
        self._log = setting.work / f"{name}.log"
        self.process = _start(setting, self._log, [*launcher, *WATCH, *watch, "RUN", *given], env or {})

    def ends(self, code: int = 0) -> Job:
        """Wait for it; the exit code must be this one."""
        exit_code = self.process.wait()
        assert exit_code == code, f"{self.folder.name}: exit code {exit_code}, not {code}\n{self.log[-6000:]}"
        return self

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")


class Series:
    """Runs of job/train.py by one process, one after the other, which has been started."""

    def __init__(self, setting: Setting, name: str, runs: Mapping[str, Sequence[str]]) -> None:
        """`runs`: name and flags of each."""
        self._folder, self._log = setting.work / name, setting.work / f"{name}.log"
        command = list(WATCH)
        for run, flags in runs.items():
            command += ["RUN", *_flags(setting), "--output_dir", str(self._folder / run), *flags]
        self._process = _start(setting, self._log, command, {})

    def ended_well(self) -> bool:
        """Wait for it; where it failed, print its last words."""
        if self._process.wait():
            print(f"{self._log.stem}:", self._log.read_text(errors="replace")[-2500:])
        return self._process.returncode == 0

    def __getitem__(self, run: str) -> Run:
        return Run(self._folder / run)


def _start(setting: Setting, log: Path, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    fixed = {"HF_HOME": str(setting.work / "cache"), "HF_HUB_OFFLINE": "1"}
    fixed |= {"OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "4"}  # thirty of them may run at a time
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT,
            env={**os.environ, **fixed, **env},
        )  # fmt: skip


def _flags(setting: Setting) -> list[str]:
    return [
        *("--model_name_or_path", str(setting.world / "plain")),
        *("--train_file", str(setting.world / "train.csv"), "--validation_file", str(setting.world / "eval.csv")),
        *("--train_batch_size", "64", "--max_steps", "24", "--learning_rate", "1e-3"),
        *("--eval_strategy", "no", "--logging_steps", "1"),
        *(() if setting.on_gpu else SMALL),
    ]


def apart(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Largest difference of two lists of equal length."""
    return float(np.abs(np.array(a) - np.array(b)).max())
