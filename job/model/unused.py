"""Finds parameters that a model does not use for text classification, before the optimizer and DDP are created.

DDP waits for a gradient of every parameter and fails in the second step if one has none: the contact head of ESM, the
pooler of BigBird, the mask embedding of XLNet. Such parameters are frozen, which changes nothing: without a gradient
they would not be trained on one process either. If usage depends on the row or is random (experts, layer drop), nothing
is frozen, because the next row may use it; DDP then searches for unused parameters in every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Inputs = dict[str, torch.Tensor]


def find(model: PreTrainedModel, rows: Sequence[Inputs]) -> tuple[frozenset[str], bool]:
    """(names of the parameters that get no gradient; whether this may differ between steps).

    Args:
        model: configured for training, on its device.
        rows: inputs of one example each, of various lengths.
    """
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    used = [_used_parameters(model, row) for row in rows]
    in_all, in_any = frozenset.intersection(*used), frozenset.union(*used)
    unused = frozenset(names - in_any)
    varies = in_all != in_any or _drops_layers(model) or _has_unused_alternatives(model, unused)
    return unused, varies or (bool(unused) and not _is_from_transformers(model))


def freeze(model: PreTrainedModel, names: frozenset[str]) -> None:
    """Freeze these parameters."""
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)


def _used_parameters(model: PreTrainedModel, row: Inputs) -> frozenset[str]:
    """Names of the parameters that get a gradient when training on one row. The model is not changed."""
    was_training, buffers = model.training, [buffer.clone() for buffer in model.buffers()]
    model.train()
    model.zero_grad(set_to_none=True)
    try:
        model.forward(**row).logits.float().sum().backward()  # not __call__, which may be compiled
        return frozenset(name for name, parameter in model.named_parameters() if parameter.grad is not None)
    finally:
        model.zero_grad(set_to_none=True)
        model.train(was_training)
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)


def _drops_layers(model: PreTrainedModel) -> bool:
    """Whether layers are dropped at random, as in BART: a few rows may not show it."""
    options = model.config.to_dict().items()
    return any(name.endswith("layerdrop") and isinstance(value, float) and value > 0 for name, value in options)


def _has_unused_alternatives(model: PreTrainedModel, unused: frozenset[str]) -> bool:
    """Whether a list of modules has used and unused ones: experts, and other rows may be routed to others."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict):
            own = ({f"{name}.{key}.{p}" for p, _ in one.named_parameters()} for key, one in module.named_children())
            if len({names & trained <= unused for names in own if names & trained}) > 1:
                return True
    return False


def _is_from_transformers(model: PreTrainedModel) -> bool:
    """Whether the code is that of Transformers, where alternatives are lists; custom code may choose in any way."""
    return type(model).__module__.startswith("transformers.models.")
