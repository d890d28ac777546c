"""How many GPUs a local run uses; a driver that fails never means the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.errors import Refused
from job.runtime import gpus as driver
from launch.local import gpus
from launch.local.gpus import Gpus
from tests.support import nvidia_smi


@pytest.mark.parametrize(
    ("named", "count"),
    [
        ("0", 1),
        ("0,1,3", 3),
        ("0, 1", 2),
        ("0,-1,1", 1),
        ("GPU-8f6d-00,GPU-9", 2),
        ("MIG-1/2/3,MIG-1/2/4", 1),
        ("GPU-8f6d-00,MIG-1/2/3", 1),
    ],
)
def test_named_gpus_are_counted_as_cuda_does(named: str, count: int) -> None:
    assert gpus.inspect({"CUDA_VISIBLE_DEVICES": named}).to_use(None) == count


@pytest.mark.parametrize(
    "environ",
    [
        {"CUDA_VISIBLE_DEVICES": ""},
        {"CUDA_VISIBLE_DEVICES": "-1"},
        {"CUDA_VISIBLE_DEVICES": "NoDevFiles"},
        {"ACCELERATE_USE_CPU": "true"},
        {"ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": "0,1"},
    ],
)
def test_the_environment_can_request_the_cpu(environ: dict[str, str]) -> None:
    found = gpus.inspect(environ)
    assert found.to_use(None) == 0 and found.cpu_is_requested(None, None)
    with pytest.raises(Refused, match="--gpus 1: only 0 are visible"):
        found.to_use(1)


LISTED = {
    "two": (nvidia_smi.TWO, 2),
    "MIG: one device, and no whole GPU in addition": (
        "echo 'GPU 0: H200 (UUID: GPU-1)'; echo '  MIG 1g.18gb  Device  0: (UUID: MIG-1)'; "
        "echo '  MIG 1g.18gb  Device  1: (UUID: MIG-2)'; echo 'GPU 1: H200'",
        1,
    ),
    "none": ("echo 'No devices found.'", 0),
}


@pytest.mark.parametrize("kind", LISTED)
def test_gpus_that_nvidia_smi_lists(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, count = LISTED[kind]
    nvidia_smi.install(script, tmp_path, monkeypatch)
    monkeypatch.setattr(driver, "DRIVER", tmp_path / "none")
    assert gpus.inspect({}) == Gpus(count)


def test_a_machine_without_gpus_has_none_and_nobody_requested_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(driver, "DRIVER", tmp_path / "none")
    found = gpus.inspect({})
    assert found.to_use(None) == 0 and not found.cpu_is_requested(None, None)


@pytest.mark.parametrize("asked", [None, 1])
@pytest.mark.parametrize(
    ("environ", "script", "message"),
    [
        (
            {},
            nvidia_smi.MISMATCH,
            r"nvidia-smi fails \(Failed .* mismatch\): repair the .*; to train on the CPU use GPUS=0",
        ),
        ({}, "echo 'No devices found.'", r"driver has 1 GPU\(s\), but nvidia-smi is missing or shows none"),
        ({"CUDA_VISIBLE_DEVICES": "all"}, "exit 1", "CUDA_VISIBLE_DEVICES=all names no GPU: name the GPUs, as in"),
        ({"CUDA_VISIBLE_DEVICES": "0;1"}, "exit 1", "CUDA_VISIBLE_DEVICES=0;1 names no GPU"),
        ({"CUDA_VISIBLE_DEVICES": "1,0,1"}, "exit 1", "CUDA_VISIBLE_DEVICES=1,0,1 names a GPU twice"),
    ],
)
def test_gpus_that_cannot_be_counted_are_rejected_unless_the_cpu_is_requested(
    environ: dict[str, str],
    script: str,
    message: str,
    asked: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nvidia_smi.install(script, tmp_path, monkeypatch)
    monkeypatch.setattr(driver, "DRIVER", tmp_path)
    (tmp_path / "gpus" / "0000:17:00.0").mkdir(parents=True)
    found = gpus.inspect(environ)
    with pytest.raises(Refused, match=message):
        found.to_use(asked)
    assert found.to_use(0) == 0
