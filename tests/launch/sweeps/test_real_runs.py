"""A sweep on this machine with real runs: stopped by Ctrl-C in the middle, and continued by the same command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launch.running import ROOT, wait_until
from tests.support.interrupted import World, checkpoints, differences, status, steps

WORLD = {"num_train_epochs": 40, "early_stopping_patience": 999, "eval_steps": 50}


@pytest.mark.long
def test_a_sweep_stopped_by_ctrl_c_gives_the_same_results_as_uninterrupted_runs(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    flags = world.words(folder, {})
    words = [sys.executable, "-m", "launch", "sweep", "--local", "--parallel=2", "--grid", "seed=1,2", "--", *flags]
    environ = world.environment(PYTHONPATH=str(ROOT))
    environ["PATH"] = os.environ["PATH"]

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        return subprocess.Popen(words, env=environ, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True, process_group=0)

    first = start()
    wait_until(lambda: all(steps(folder / run)[-1:] >= [30] for run in ("0", "1")), timeout=240)
    os.killpg(first.pid, signal.SIGINT)
    out, err = first.communicate(timeout=240)
    assert first.returncode == 75, out + err
    assert [status(folder / run)["state"] for run in ("0", "1")] == ["STOPPED"] * 2, out
    assert all(checkpoints(folder / run) for run in ("0", "1"))
    out, err = (second := start()).communicate(timeout=240)
    assert second.returncode == 0, out + err
    assert "0 started: seed=1" in out and "1 DONE, accuracy " in out
    for run, seed in (("0", 1), ("1", 2)):
        alone = tmp_path / f"alone-{seed}"
        world.run(alone, seed=seed).expect(0)
        assert differences(alone, folder / run) == []
    out, _ = (third := start()).communicate(timeout=240)
    assert third.returncode == 0 and "existing  2 DONE\nnothing to start" in out
