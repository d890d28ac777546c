"""Whether the weights in a model's folder are those that its config.json describes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from job.errors import Refused

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def check(name: str, loaded: PreTrainedModel, info: Mapping[str, Any], as_is: bool) -> None:
    """Refused if weights outside the head are missing, left over or of the wrong size; with `as_is`, of the head too.

    A pooler counts as part of the head: some models are pretrained without one.

    Args:
        name: of the model, for messages.
        loaded: the model.
        info: Transformers' loading info.
        as_is: whether the model is used as it is, without training.
    """
    mismatched = {key for key, *_ in info["mismatched_keys"]}
    missing = set(info["missing_keys"])
    if as_is and mismatched:
        raise Refused(f"model {name}: the weights {min(mismatched)} are of another size than config.json says "
                      f"({loaded.config.num_labels} outputs)")  # fmt: skip
    if as_is and missing:
        raise Refused(f"model {name} was not fine-tuned to classify texts: it has no {min(missing)}")
    if loaded.base_model is loaded:  # custom code: its head is unknown
        return
    body = {f"{loaded.base_model_prefix}.{key}" for key, _ in loaded.base_model.named_parameters()}
    lost = {key for key in (missing | mismatched) & body if "pooler" not in key}
    if lost:
        raise Refused(f"model {name}: its weights are not those of its config.json: {min(lost)} is "
                      f"{'of another size' if min(lost) in mismatched else 'missing'}")  # fmt: skip
    unused = _left_over(loaded, info["unexpected_keys"], as_is)
    if unused:
        raise Refused(f"model {name}: its weights are not those of its config.json: {unused[0]} would not be used")


def _left_over(loaded: PreTrainedModel, unexpected: Iterable[str], as_is: bool) -> list[str]:
    """Weights in the folder of layers that config.json does not count, or of modules that it gives no such weight.

    Weights of other heads, poolers and parts that the model does not have are no contradiction.
    """
    prefix = f"{loaded.base_model_prefix}."
    return sorted(
        key
        for key in unexpected
        if _lacks(loaded.base_model, key.removeprefix(prefix)) or (as_is and _lacks(loaded, key))
    )


def _lacks(model: torch.nn.Module, key: str) -> bool:
    """Whether a list of layers of `model` is too short for this weight, or its module is there without it, or without
    the part that holds it: an adapter that was not merged."""
    from torch.nn import Module, ModuleList

    module, (*path, name) = model, key.split(".")
    for part in path:
        inner = getattr(module, part, None)
        if not isinstance(inner, Module):
            return (isinstance(module, ModuleList) and part.isdecimal()) or _has_only_weights(module)
        module = inner
    return name in ("weight", "bias") and not list(module.children()) and getattr(module, name, None) is None


def _has_only_weights(module: torch.nn.Module) -> bool:
    return not list(module.children()) and bool(list(module.parameters()))
