"""How deep in a model each parameter is: in the embeddings, in layer 1, 2, ..., or in the head.

Depths are derived from the module tree, so no model family is named here. The layers are the elements of the outermost
ModuleLists of the base model, numbered from the input; decoder layers follow encoder layers. Lists of equal length in
one module are parts of the same layers (XLM has separate lists for attention and feed-forward), and a list of lists is
treated as one list (Funnel). Outside the lists: embeddings, and everything before the first list, have depth 0; a norm
between two lists belongs to the layer before it; everything after the last list belongs to the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LAST = ("final", "pooler")
"""Names of modules that are computed after the layers, although some models register them before (OPT, GTE)."""


@dataclass(frozen=True)
class Depths:
    """The depths of a model's parameters.

    Attributes:
        layers: n, the number of layers with their own trained weights; 0 if the model has no layers.
        sharing: how many layers of the forward pass share the weights, as in ALBERT; None if none do.
        of: name of each trained parameter -> 0 for the embeddings, 1 to n for a layer, n + 1 for the head.
    """

    layers: int
    sharing: int | None
    of: dict[str, int]


def depths(model: PreTrainedModel) -> Depths:
    """The depths of the trained parameters; frozen ones are ignored."""
    numbering = _Numbering()
    numbering.visit(model.base_model)
    head = numbering.layers + 1
    of = {
        name: _depth(numbering.positions.get(id(parameter)), numbering.layers, head)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    passes = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    shared = isinstance(passes, int) and 0 < numbering.layers < passes
    return Depths(numbering.layers, passes if shared else None, of)


def _depth(position: tuple[int, bool] | None, layers: int, head: int) -> int:
    """The depth of a parameter, given its position as in `_Numbering`; None: outside the base model."""
    if position is None:
        return head
    depth, fixed = position
    return head if depth == layers and not fixed else depth


class _Numbering:
    """Numbers the layers of a base model in the order in which modules are registered.

    `positions`: id of a parameter -> (number of layers up to it, whether that is its depth even after the last layer).
    """

    def __init__(self) -> None:
        self.layers = 0
        self.positions: dict[int, tuple[int, bool]] = {}

    def visit(self, module: torch.nn.Module, embeds: bool = False) -> None:
        """Number the layers below `module`; `embeds`: the module is part of the embeddings."""
        embeds = embeds or isinstance(module, torch.nn.Embedding)
        for name, parameter in module.named_parameters(recurse=False):
            embedding = embeds or "embed" in name
            self.positions.setdefault(id(parameter), (0, True) if embedding else (self.layers, False))
        layers_before: dict[int, int] = {}  # length of a list -> layers before it
        for name, child in sorted(module.named_children(), key=lambda child: child[0].startswith(LAST)):
            layers = _layers(child)
            if not layers:
                self.visit(child, embeds or "embed" in name)
                continue
            before = layers_before.setdefault(len(layers), self.layers)
            for number, layer in enumerate(layers, before + 1):
                self.positions.update((id(parameter), (number, True)) for parameter in layer.parameters())
            self.layers = max(self.layers, before + len(layers))


def _layers(module: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers of a ModuleList that is trained, nested lists flattened; [] for any other module."""
    if not isinstance(module, torch.nn.ModuleList) or not any(p.requires_grad for p in module.parameters()):
        return []
    return [layer for child in module for layer in (_layers(child) or [child])]
