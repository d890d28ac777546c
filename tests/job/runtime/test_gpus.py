"""A failure of nvidia-smi is not the same as a machine without GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.runtime import gpus
from job.runtime.gpus import Listing
from tests.support import nvidia_smi


@pytest.mark.parametrize(
    ("script", "count", "failure"),
    [
        (nvidia_smi.TWO, 2, ""),
        ("echo 'No devices found.'", 0, ""),
        ("echo 'No devices found.'; exit 6", 0, ""),
        (nvidia_smi.MISMATCH, 0, "Failed to initialize NVML: Driver/library version mismatch"),
        ("echo 'Unable to determine the device handle' >&2; exit 255", 0, "Unable to determine the device handle"),
        ("exit 9", 0, "exit code 9"),
        ("sleep 60", 0, "no answer within 0.2 s"),
    ],
)
def test_gpus_that_nvidia_smi_lists_or_its_failure(
    script: str, count: int, failure: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvidia_smi.install(script.replace("sleep", "exec sleep"), tmp_path, monkeypatch)
    monkeypatch.setattr(gpus, "SECONDS", 0.2 if "sleep" in script else 30)
    listing = gpus.listed()
    assert (listing.gpus, listing.failure) == (count, failure)


def test_nvidia_smi_that_is_not_installed_is_no_failure_and_one_that_cannot_start_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.listed() == Listing()
    nvidia_smi.install("", tmp_path, monkeypatch)
    (tmp_path / "nvidia-smi").write_bytes(b"\x7fELF of another machine")
    assert gpus.listed().failure == "Exec format error"


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
    assert gpus.cpu_is_requested(environ) == expected


def test_the_drivers_own_files_count_where_nvidia_smi_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nvidia_smi.install(nvidia_smi.MISMATCH, tmp_path, monkeypatch)
    monkeypatch.setattr(gpus, "DRIVER", tmp_path)
    assert (gpus.in_driver(), gpus.driver_version()) == (0, "")
    (tmp_path / "gpus" / "0000:17:00.0").mkdir(parents=True)
    (tmp_path / "version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.65.06  Sun Jul 27 2025\n")
    assert (gpus.in_driver(), gpus.driver_version()) == (1, "580.65.06")
