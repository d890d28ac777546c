"""Too few, hidden or unusable GPUs are reported in one line before the job starts; it never silently uses the CPU."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from job import devices
from job.devices import Devices
from job.errors import Refused
from tests.support import nvidia_smi

BUILT: dict[str, Any] = {"torch": "2.13.0", "cuda": "13.0"}


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        (
            Devices(present=2, driver="550.54.15", **BUILT),
            "NVIDIA driver 550.54.15 is too old .* CUDA 13.* 580 or newer",
        ),
        (Devices(present=2, driver="470.1", torch="2.11.0", cuda="12.6"), "too old .* CUDA 12.* 525 or newer"),
        (Devices(present=1, torch="2.13.0+cpu"), r"torch 2\.13\.0\+cpu is built without CUDA"),
        (Devices(present=2, driver="580.1", mask="7", **BUILT), "CUDA_VISIBLE_DEVICES=7 shows none: correct it"),
        (Devices(mask="0", **BUILT), "torch sees no GPU, and CUDA_VISIBLE_DEVICES=0 shows none"),
        (
            Devices(present=2, failure="version mismatch", **BUILT),
            r"2 GPU\(s\), and nvidia-smi fails \(version mismatch\): repair",
        ),
        (
            Devices(failure="version mismatch", **BUILT),
            r"sees no GPU, and nvidia-smi fails \(version mismatch\): repair",
        ),
        (Devices(present=2, driver="580.1", **BUILT), "cannot use them"),
        (Devices(processes=4, visible=2, present=2, **BUILT), r"4 processes on this machine see 2 GPU\(s\)"),
        (Devices(processes=2, visible=1, present=1, mask="0", **BUILT), r"see 1 GPU\(s\) \(CUDA_VISIBLE_DEVICES=0\)"),
        (
            Devices(visible=1, present=1, capability=(7, 0), oldest_capability=(7, 5), **BUILT),
            r"capability 7\.0, but torch 2\.13\.0 is built for 7\.5",
        ),
    ],
)
def test_gpu_problems_are_reported_in_one_line(facts: Devices, line: str) -> None:
    reason = devices.problem(facts)
    assert reason is not None and re.search(line, reason) and "\n" not in reason


@pytest.mark.parametrize(
    "facts",
    [
        Devices(processes=8, torch="2.13.0+cpu"),
        Devices(processes=2, visible=2, present=2, capability=(9, 0), oldest_capability=(7, 5), **BUILT),
        Devices(processes=1, visible=4, present=4, **BUILT),
        Devices(visible=1, present=1, driver="550.54", torch="2.13.0", cuda="13.0"),  # by a compatibility package
    ],
)
def test_no_gpu_and_enough_gpus_are_accepted(facts: Devices) -> None:
    assert devices.problem(facts) is None


def test_gpus_and_driver_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi.install(f'[ "$1" != -L ] && echo 550.54.15 && exit; {nvidia_smi.TWO}', tmp_path, monkeypatch)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices.torch.version, "cuda", "13.0")
    actual = devices.look()
    assert (actual.present, actual.driver, actual.visible) == (2, "550.54.15", 0)
    with pytest.raises(Refused, match=r"NVIDIA driver .* is too old"):
        devices.check()
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    devices.check()


def test_a_driver_that_fails_ends_the_job_unless_the_cpu_is_requested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi.install(nvidia_smi.MISMATCH, tmp_path, monkeypatch)
    for name in ("CUDA_VISIBLE_DEVICES", "ACCELERATE_USE_CPU"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    with pytest.raises(Refused, match=r"nvidia-smi fails \(Failed to initialize NVML: .*\): repair .* GPUS=0 \(make\)"):
        devices.check()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    devices.check()
