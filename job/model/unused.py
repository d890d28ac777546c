"""Parameters that a model does not use to classify texts, found before the optimizer and DDP are made.

DDP waits for a gradient of every parameter and fails in the second step where one has none: the contact head of ESM,
the pooler of BigBird, the mask embedding of XLNet. Such parameters are frozen, which changes nothing: without a
gradient they are not trained on one process either. Where the row or chance decides what is used (experts, dropped
layers) nothing is frozen, as the next row may use it; DDP then looks for the unused parameters in every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Inputs = dict[str, torch.Tensor]


def find(model: PreTrainedModel, rows: Sequence[Inputs]) -> tuple[frozenset[str], bool]:
    """(names of the parameters that get no gradient; whether the row or chance decides).

    Args:
        model: in training as configured, on its device.
        rows: inputs of one example each, of various lengths.
    """
    names = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    used = [_used(model, row) for row in rows]
    always, ever = frozenset.intersection(*used), frozenset.union(*used)
    unused = frozenset(names - ever)
    varies = always != ever or _drops_layers(model) or _leaves_out_alternatives(model, unused)
    return unused, varies or (bool(unused) and not _is_of_transformers(model))


def freeze(model: PreTrainedModel, names: frozenset[str]) -> None:
    """Train these parameters no more."""
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)


def _used(model: PreTrainedModel, row: Inputs) -> frozenset[str]:
    """Names of the parameters that get a gradient in training on one row. The model is left as it was."""
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
    """Whether layers are left out at random, as in BART: a few rows need not show it."""
    options = model.config.to_dict().items()
    return any(name.endswith("layerdrop") and isinstance(value, float) and value > 0 for name, value in options)


def _leaves_out_alternatives(model: PreTrainedModel, unused: frozenset[str]) -> bool:
    """Whether a list of modules has used and unused ones: experts, and other rows may be sent to other ones."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList | torch.nn.ModuleDict):
            own = ({f"{name}.{key}.{p}" for p, _ in one.named_parameters()} for key, one in module.named_children())
            if len({names & trained <= unused for names in own if names & trained}) > 1:
                return True
    return False


def _is_of_transformers(model: PreTrainedModel) -> bool:
    """Whether the code is the library's, in which alternatives are lists; other code may choose in any way."""
    return type(model).__module__.startswith("transformers.models.")
