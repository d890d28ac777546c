"""Starts real processes of the job the way users do, on the CPU, and gives what they said.

One thread a process, so that numbers can be compared between one and several processes; the hub is off.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "job" / "train.py"
PREDICT = ROOT / "job" / "predict.py"
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "USER")


def environment(home: Path, **extra: str) -> dict[str, str]:
    """A clean environment: nothing of the caller's that could steer the job, caches in `home`."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**kept, "HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **extra}


def alone(script: Path, *arguments: str, env: Mapping[str, str], cwd: Path, seconds: float = 300) -> Finished:
    """`python script arguments`."""
    return run([sys.executable, str(script), *arguments], env, cwd, seconds)


def torchrun(
    processes: int, script: Path, *arguments: str, env: Mapping[str, str], cwd: Path, seconds: float = 400
) -> Finished:
    """The script on several processes; one is started like several, so that nothing but the number differs."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return run([*launcher, str(script), *arguments], {**env, "ACCELERATE_USE_CPU": "true"}, cwd, seconds)


def run(command: Sequence[str], env: Mapping[str, str], cwd: Path, seconds: float) -> Finished:
    done = subprocess.run(command, env=dict(env), cwd=cwd, capture_output=True, text=True, timeout=seconds)
    return Finished(done.returncode, done.stdout, done.stderr)


class Finished:
    """Exit code and output of a command."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr

    def expect(self, code: int = 0) -> Finished:
        assert self.code == code, f"exit code {self.code}\n{self.stdout[-3000:]}\n{self.stderr[-6000:]}"
        return self

    @property
    def errors(self) -> list[str]:
        """The job's own last words, without what launchers add."""
        return [line for line in self.stderr.splitlines() if line.startswith("error: ")]
