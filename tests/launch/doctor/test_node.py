"""What a rank checks, alone or with one other; a fault that needs another machine is made at torch's edge."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from job import devices
from launch.doctor import node
from launch.doctor.checks import Problem
from tests.support.launch import ROOT, environment, run

ONE_DIES = """
import os, sys
from pathlib import Path
import torch
from launch.doctor import checks, node
number = int(os.fork() == 0)
rank = node.Rank(Path(sys.argv[1]), gpus=0, number=number, world=2)
node.join(rank)
if number:
    os._exit(1)
os.wait()
try:
    node.all_reduce(rank)
except checks.Problem as problem:
    print(problem.detail, problem.remedy, flush=True)
os._exit(0)
"""


@pytest.fixture(autouse=True)
def no_group_stays() -> Iterator[None]:
    import torch

    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def test_a_wrong_sum_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken twin of the collective adds to the last of 16 million numbers alone."""
    import torch

    rank = node.Rank(tmp_path, gpus=0)
    node.join(rank)
    assert node.all_reduce(rank).startswith("correct; 67 MB in ")
    monkeypatch.setattr(torch.distributed, "all_reduce", lambda tensor, *_: tensor[-1:].add_(1))
    with pytest.raises(Problem, match="the sum of 1 to 1 is wrong on rank 0"):
        node.all_reduce(rank)


def test_a_process_that_never_joins_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "JOIN_SECONDS", 1.0)
    with pytest.raises(Problem, match="the processes do not find each other: ") as caught:
        node.join(node.Rank(tmp_path, gpus=0, world=2))
    assert "GLOO_SOCKET_IFNAME" in caught.value.remedy


def test_a_process_lost_during_the_all_reduce_is_reported(tmp_path: Path) -> None:
    words = [sys.executable, "-c", ONE_DIES, str(tmp_path)]
    done = run(words, environment(tmp_path, PYTHONPATH=str(ROOT)), tmp_path, 120).expect(0)
    assert done.stdout.startswith("it fails: "), done.stdout
    assert "NCCL_DEBUG=INFO" in done.stdout


def test_missing_and_broken_gpus_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(Problem, match="2 GPUs were asked for and torch sees 0") as caught:
        node.gpu(node.Rank(tmp_path, gpus=2, host="n7"))
    assert "--sbatch=--exclude=n7" in caught.value.remedy
    monkeypatch.setattr(devices, "look", lambda: devices.Devices(visible=1, present=1))
    with pytest.raises(Problem, match="GPU 0 does not compute: ") as caught:
        node.gpu(node.Rank(tmp_path, gpus=1, host="n7"))
    assert caught.value.remedy == "ask an administrator to look at n7"
    monkeypatch.setattr(devices, "look", lambda: devices.Devices(present=1, cuda="13.0", driver="570.1", torch="2.13"))
    with pytest.raises(Problem, match=r"NVIDIA driver 570\.1 is too old for torch 2\.13"):
        node.gpu(node.Rank(tmp_path, gpus=1))


def test_a_driver_that_fails_is_reported_where_no_gpu_was_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(devices, "look", lambda: devices.Devices(failure="version mismatch"))
    with pytest.raises(Problem, match=r"torch sees no GPU, and nvidia-smi fails \(version mismatch\)") as caught:
        node.gpu(node.Rank(tmp_path, gpus=0))
    assert caught.value.remedy.startswith("repair the driver")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert node.gpu(node.Rank(tmp_path, gpus=0)) == "none requested"


def test_an_unwritable_cache_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(Problem, match=r"HF_HOME \(.*/file/home\) cannot be written: Not a directory") as caught:
        node.disk(node.Rank(tmp_path, gpus=0))
    assert caught.value.remedy == "set HF_HOME to another folder"
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "what was written to try is removed"


@pytest.mark.parametrize("home", ["~/cache", "$PLACE/cache", None])
def test_the_cache_is_the_one_that_the_libraries_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None
) -> None:
    """In .env, no shell has replaced ~ or a variable."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    for name in ("HOME", "PLACE", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    monkeypatch.delenv("HF_HOME", raising=False)
    if home is not None:
        monkeypatch.setenv("HF_HOME", home)
    node.disk(node.Rank(tmp_path / "run", gpus=0))
    assert {path.name for path in tmp_path.iterdir()} == {"home", "run"}
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["huggingface" if home is None else "cache"]
