"""How deep in a model each parameter is: in the embeddings, in layer 1, 2, ..., or in the head.

The paths of the modules tell it, so no family is named here. The layers are the modules of the outermost lists of the
base model, numbered from the input; those of a decoder follow those of its encoder. Lists of the same length in one
module are parts of the same layers (XLM keeps attention and feed-forward apart), and a list of lists is one list
(Funnel). Outside the lists, embeddings are at depth 0 regardless of where they are registered; so is all that comes
before the first list. A norm between two lists belongs to the layer before it, and what comes after the last list to
the head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LAST = ("final", "pooler")
"""Names of modules that follow the layers, although some models register them before (OPT, GTE)."""


@dataclass(frozen=True)
class Depths:
    """The depths of a model's parameters.

    Attributes:
        layers: n, the number of layers with weights of their own that are trained; 0 where there are no layers.
        sharing: layers of the forward pass that share these weights, as ALBERT's do; None where each has its own.
        of: name of each trained parameter -> 0 for the embeddings, 1 to n for a layer, n + 1 for the head.
    """

    layers: int
    sharing: int | None
    of: dict[str, int]


def depths(model: PreTrainedModel) -> Depths:
    """The depths of the parameters that are trained; what is frozen counts for nothing."""
    base, found = model.base_model, _Walk()
    found.walk(base)
    head = found.layers + 1
    of = {
        name: _settled(found.of.get(id(parameter)), found.layers, head)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    passes = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    shared = isinstance(passes, int) and 0 < found.layers < passes
    return Depths(found.layers, passes if shared else None, of)


def _settled(place: tuple[int, bool] | None, layers: int, head: int) -> int:
    """The depth of (lists' layers before it, whether it is in a layer); None: it is not in the base model."""
    if place is None:
        return head
    depth, in_layer = place
    return head if depth == layers and not in_layer else depth


class _Walk:
    """A walk through the modules of a base model, in the order in which they are registered."""

    def __init__(self) -> None:
        self.layers = 0
        self.of: dict[int, tuple[int, bool]] = {}

    def walk(self, module: torch.nn.Module, embeds: bool = False) -> None:
        """Number the layers below `module`; `embeds`: it is part of the embeddings."""
        embeds = embeds or isinstance(module, torch.nn.Embedding)
        for name, parameter in module.named_parameters(recurse=False):
            inside = embeds or "embed" in name
            self.of.setdefault(id(parameter), (0, True) if inside else (self.layers, False))
        parts: dict[int, int] = {}
        for name, child in sorted(module.named_children(), key=lambda child: child[0].startswith(LAST)):
            layers = _layers(child)
            if not layers:
                self.walk(child, embeds or "embed" in name)
                continue
            before = parts.setdefault(len(layers), self.layers)
            for number, layer in enumerate(layers, before + 1):
                self.of.update((id(parameter), (number, True)) for parameter in layer.parameters())
            self.layers = max(self.layers, before + len(layers))


def _layers(module: torch.nn.Module) -> list[torch.nn.Module]:
    """The layers of a list of modules that are trained, those of lists within it in a row; [] if it is none."""
    if not isinstance(module, torch.nn.ModuleList) or not any(p.requires_grad for p in module.parameters()):
        return []
    return [layer for child in module for layer in (_layers(child) or [child])]
