"""Starts real processes of the job on the CPU and returns their output.

`alone` and `torchrun` fork from a process that has imported the libraries (tests.support.forked); `cold` and
`cold_torchrun` start Python as users do, for where the start itself is tested: it costs five CPU seconds a process.
One thread a process, so that numbers can be compared between one and several processes; the hub is off.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support import forked

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "job" / "train.py"
PREDICT = ROOT / "job" / "predict.py"
IN_TURN = f"""
import importlib, json, os, sys
sys.path.insert(0, {str(ROOT)!r})
from job.runtime import environment
environment.prepare()
for name in {forked.LIBRARIES}:
    importlib.import_module(name)
import datasets
from job import train
for number, argv in enumerate(json.loads(sys.argv[1])):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(f"{{number}}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        datasets.fingerprint.fingerprint_rng.seed()
        os._exit(train.main(argv))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""What the libraries read at their import is then what `env` says, as it is not with a process forked for all tests."""
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "USER")


def environment(home: Path, **extra: str) -> dict[str, str]:
    """A clean environment: nothing of the caller's that could steer the job, caches in `home`."""
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    fixed = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**kept, **fixed, **extra}


def alone(script: Path, *arguments: str, env: Mapping[str, str], cwd: Path, seconds: float = 300) -> Finished:
    """`python script arguments`, forked."""
    return _forked(script, arguments, env, cwd, seconds)


def cold(script: Path, *arguments: str, env: Mapping[str, str], cwd: Path, seconds: float = 300) -> Finished:
    """`python script arguments`."""
    return run([sys.executable, str(script), *arguments], env, cwd, seconds)


def cold_in_turn(
    lines: Sequence[Sequence[str]], *, env: Mapping[str, str], cwd: Path, seconds: float = 400
) -> list[Finished]:
    """`python job/train.py line` for each line, one after the other: one cold start, and a fork of it for each."""
    script = cwd / "in_turn.py"
    script.write_text(IN_TURN, encoding="utf-8")
    done = cold(script, json.dumps(lines), env=env, cwd=cwd, seconds=seconds).expect(0)
    return [Finished(int(code), "", (cwd / f"{i}.log").read_text()) for i, code in enumerate(done.stdout.split())]


def torchrun(
    processes: int, script: Path, *arguments: str, env: Mapping[str, str], cwd: Path, seconds: float = 400
) -> Finished:
    """The script on several processes, forked; one is started like several, so that nothing but the number differs."""
    return _forked(script, arguments, {**env, "ACCELERATE_USE_CPU": "true"}, cwd, seconds, processes)


def cold_torchrun(
    processes: int, script: Path, *arguments: str, env: Mapping[str, str], cwd: Path, seconds: float = 400
) -> Finished:
    """`torchrun --standalone --nproc-per-node processes script arguments`."""
    command = [*torchrun_command(processes), str(script), *arguments]
    return run(command, {**env, "ACCELERATE_USE_CPU": "true"}, cwd, seconds)


def torchrun_command(processes: int) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]


def _forked(
    script: Path, arguments: Sequence[str], env: Mapping[str, str], cwd: Path, seconds: float, processes: int = 0
) -> Finished:
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = forked.start(script, arguments, env, cwd, out, err, processes)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            raise
        return Finished(code, out.read_text(errors="replace"), err.read_text(errors="replace"))


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
        """The job's own error lines, without those of launchers."""
        return [line for line in self.stderr.splitlines() if line.startswith("error: ")]
