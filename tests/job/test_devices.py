"""Too few, hidden or unusable GPUs are reported in one line before the job starts; it never silently uses the CPU."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from job import devices
from job.devices import Devices
from job.errors import Refused

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
        (Devices(present=2, driver="580.1", mask="7", **BUILT), "CUDA_VISIBLE_DEVICES=7 shows none of them"),
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


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"ACCELERATE_USE_CPU": "true"}, True),
        ({"ACCELERATE_USE_CPU": "false"}, False),
        ({"CUDA_VISIBLE_DEVICES": ""}, True),
        ({"CUDA_VISIBLE_DEVICES": "-1"}, True),
        ({"CUDA_VISIBLE_DEVICES": "0"}, False),
    ],
)
def test_a_cpu_is_requested_by_name_or_by_an_empty_mask(environ: dict[str, str], expected: bool) -> None:
    assert devices.cpu_is_requested(environ) == expected


def test_gpus_and_driver_are_read_from_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _install_nvidia_smi(tmp_path, monkeypatch)
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


def _install_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = folder / "nvidia-smi"
    script.write_text(
        "#!/bin/sh\n[ \"$1\" = -L ] && printf 'GPU 0: A (UUID: x)\\nGPU 1: A (UUID: y)\\n' || echo 550.54.15\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
