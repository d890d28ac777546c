"""How many tokens a forward and backward pass takes at a time, where --max_tokens_per_device is unset.

On a GPU it follows from the device's total memory and the model. It is an estimate with a wide margin: a step that does
not fit is done again with half the tokens (job/batching/oom.py).
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
"""Above this a GPU is no faster."""
UNKNOWN = 16384
"""For a model whose configuration does not tell its size."""
SHARE = 0.6
"""Of the device's memory; the rest is for CUDA, NCCL, temporary tensors and gaps."""
STATE_BYTES = 18
"""Of a parameter: weight, gradient and two moments in fp32, and a copy in half precision."""
HIDDEN_BYTES, INTERMEDIATE_BYTES = 32, 8
"""Saved for the backward pass for each token, layer and channel, in half precision; in fp32 it is twice that. BERT-base
was measured on an H200 in bf16: 380 KB a token, where these give 590 KB."""
CHECKPOINT_BYTES = 4
"""The same with gradient checkpointing: the input of a layer."""


@dataclass(frozen=True)
class Size:
    """What of a model decides the memory of a step.

    Attributes:
        parameters: that are trained.
        layers, hidden, intermediate: of the model.
        frozen_bytes: of the parameters that are not trained.
    """

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    frozen_bytes: int = 0


def default(model: PreTrainedModel, accelerator: Accelerator, checkpointing: bool) -> int:
    """Tokens of a forward pass, the same on every process: what fits where there is least memory."""
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
    """The size that the configuration tells; None if it tells no width or depth."""
    config = model.config.get_text_config()
    hidden, layers = (getattr(config, name, None) for name in ("hidden_size", "num_hidden_layers"))
    if not isinstance(hidden, int) or not isinstance(layers, int):
        return None
    names = ("intermediate_size", "hidden_dim", "ffn_dim", "n_inner", "d_ff")
    told = next((value for name in names if isinstance(value := getattr(config, name, None), int)), 4 * hidden)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    frozen = sum(p.nbytes for p in model.parameters() if not p.requires_grad)
    return Size(trained, layers, hidden, told, frozen)
