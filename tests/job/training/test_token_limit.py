"""The default number of tokens of a pass: more memory or a smaller model means more of them, within bounds."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from job import distributed
from job.training import token_limit
from job.training.token_limit import LEAST, MOST, Size, fitting

GIB = 2**30
BASE, LARGE = Size(110_000_000, 12, 768, 3072), Size(335_000_000, 24, 1024, 4096)
BILLION = Size(1_200_000_000, 28, 2048, 6144)
MODEL: Any = None
"""Not looked at."""


@pytest.mark.parametrize(
    ("size", "memory", "half", "expected"),
    [(BASE, 140, True, MOST), (BASE, 80, True, MOST), (BASE, 24, True, 22528), (BASE, 16, True, 13312),
     (BASE, 16, False, 6144), (LARGE, 24, True, 5120), (LARGE, 80, True, 28672), (BILLION, 24, True, LEAST)],
)  # fmt: skip
def test_token_limit_by_memory(size: Size, memory: int, half: bool, expected: int) -> None:
    assert fitting(size, memory * GIB, half, checkpointing=False) == expected


def test_frozen_weights_leave_more_room() -> None:
    frozen = Size(1_000_000, 28, 2048, 6144, frozen_bytes=2 * 1_200_000_000)
    assert fitting(BILLION, 80 * GIB, True, checkpointing=False) == 9216
    assert fitting(frozen, 80 * GIB, True, checkpointing=False) == 14336


def test_gradient_checkpointing_leaves_more_room() -> None:
    assert fitting(LARGE, 24 * GIB, True, checkpointing=True) > 4 * fitting(LARGE, 24 * GIB, True, checkpointing=False)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_gpus_memory_decides(monkeypatch: pytest.MonkeyPatch, processes: int) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(total_memory=24 * GIB))
    monkeypatch.setattr(
        distributed, "gather_objects", lambda accelerator, mine: [mine, 5120][: accelerator.num_processes]
    )
    monkeypatch.setattr(token_limit, "size_of", lambda model: BASE)
    on_gpu = SimpleNamespace(device=torch.device("cuda", 0), mixed_precision="bf16", num_processes=processes)
    assert token_limit.default(MODEL, on_gpu, checkpointing=False) == (22528 if processes == 1 else 5120)


@pytest.mark.parametrize("architecture", ["BertConfig", "DistilBertConfig", "Qwen3Config", "GPT2Config"])
def test_the_size_is_read_from_the_configuration(architecture: str) -> None:
    import transformers

    config = getattr(transformers, architecture)()
    parameters = [torch.nn.Parameter(torch.empty(shape)) for shape in ((3,), (2, 2))]
    frozen = torch.empty(5, dtype=torch.bfloat16)
    model: Any = SimpleNamespace(config=config, parameters=lambda: [*parameters, frozen])
    size = token_limit.size_of(model)
    assert size is not None
    assert (size.parameters, size.layers, size.hidden) == (7, config.num_hidden_layers, config.hidden_size)
    assert size.frozen_bytes == 10
    assert size.intermediate >= 3 * size.hidden


def test_on_a_cpu_it_is_a_constant() -> None:
    assert token_limit.default(MODEL, Accelerator(cpu=True), checkpointing=False) == token_limit.ON_CPU
