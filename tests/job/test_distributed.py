"""Precisions that a device has, imitates, or lacks. The facts of the hardware are given by hand."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from job import distributed
from job.errors import Refused

CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def precision_put_back() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("capability", [None, *distributed.BF16])
@pytest.mark.parametrize("main", [True, False])
def test_bf16_that_a_cpu_imitates_is_said_once(
    capability: str | None, main: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    has = {"avx2": True, "architecture": "x86_64", **({capability: True} if capability else {})}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    distributed._set_precision("bf16", CPU, main)
    distributed._set_precision("no", CPU, main)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == (main and capability is None)
    assert all(" WARNING --mixed_precision bf16: this CPU " in line for line in said)


def test_bf16_that_a_gpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    distributed._set_precision("fp16", GPU, True)
    with pytest.raises(Refused, match=r"^--mixed_precision bf16: this GPU computes no bf16, take fp16$"):
        distributed._set_precision("bf16", GPU, True)


def test_fp16_is_refused_on_a_cpu() -> None:
    with pytest.raises(Refused, match=r"^--mixed_precision fp16 needs a GPU: on a CPU take bf16 or no$"):
        distributed._set_precision("fp16", CPU, True)


@pytest.mark.parametrize(("device", "expected"), [(CPU, "highest"), (GPU, "high")])
def test_matrix_products_in_fp32_are_tf32_on_a_gpu_alone(device: torch.device, expected: str) -> None:
    torch.set_float32_matmul_precision("highest")
    distributed._set_precision("no", device, True)
    assert torch.get_float32_matmul_precision() == expected
