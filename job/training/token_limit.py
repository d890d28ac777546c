"""The default of --max_tokens_per_device.

On a GPU it is estimated from the device's memory and the model, with a wide margin. A step that still does not fit is
retried with half the tokens (job/batching/oom.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator

from job import distributed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ON_CPU = 4096
LEAST, MOST = 4096, 65536
"""Bounds of the default; more tokens do not make a GPU faster."""
UNKNOWN = 16384
"""Default for a model whose configuration does not state its size."""
SHARE = 0.6
"""Usable share of the device's memory; the rest is for CUDA, NCCL, temporary tensors and fragmentation."""
STATE_BYTES = 18
"""Bytes per parameter: weight, gradient and two moments in fp32, and a copy in half precision."""
HIDDEN_BYTES, INTERMEDIATE_BYTES = 32, 8
"""Bytes saved for the backward pass per token, layer and channel, in half precision; twice that in fp32. Measured for
BERT-base on an H200 in bf16: 380 KB per token, where these estimate 590 KB."""
CHECKPOINT_BYTES = 4
"""The same with gradient checkpointing, which saves only the input of a layer."""


@dataclass(frozen=True)
class Size:
    """The dimensions of a model that determine the memory of a step.

    Attributes:
        parameters: number of trained parameters.
        layers, hidden, intermediate: dimensions of the model.
        frozen_bytes: bytes of the parameters that are not trained.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    frozen_bytes: int = 0


def default(model: PreTrainedModel, accelerator: Accelerator, checkpointing: bool) -> int:
    """Tokens per forward pass: what fits on the process with the least memory, the same on every process."""
    if accelerator.device.type != "cuda":
        return ON_CPU
    size, memory = size_of(model), torch.cuda.get_device_properties(accelerator.device).total_memory
    half = accelerator.mixed_precision in ("bf16", "fp16")
    mine = UNKNOWN if size is None else fitting(size, memory, half, checkpointing)
    return min(distributed.gather_objects(accelerator, mine))


def fitting(size: Size, memory: int, half: bool, checkpointing: bool) -> int:
    """A multiple of 1024 tokens whose step fits into `memory` bytes, between LEAST and MOST."""
    layer = (HIDDEN_BYTES * size.hidden + INTERMEDIATE_BYTES * size.intermediate) * (1 if half else 2)
    token = layer * size.layers
    if checkpointing:
        token = layer + CHECKPOINT_BYTES * size.hidden * size.layers
    room = SHARE * memory - STATE_BYTES * size.parameters - size.frozen_bytes
    return int(min(MOST, max(LEAST, room / token // 1024 * 1024)))


def size_of(model: PreTrainedModel) -> Size | None:
    """The size according to the model's configuration; None if it states no width or depth."""
    config = model.config.get_text_config()
    hidden, layers = (getattr(config, name, None) for name in ("hidden_size", "num_hidden_layers"))
    if not isinstance(hidden, int) or not isinstance(layers, int):
        return None
    names = ("intermediate_size", "hidden_dim", "ffn_dim", "n_inner", "d_ff")
    width = next((value for name in names if isinstance(value := getattr(config, name, None), int)), 4 * hidden)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    return Size(trained, layers, hidden, width, frozen)
