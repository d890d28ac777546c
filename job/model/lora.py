"""Low-rank adapters (LoRA, arXiv 2106.09685) by peft: two small matrices are trained in addition to each frozen linear
layer.

The adapters are put into the Transformers model itself, so packing, evaluation and saving see the model that they know.
Trained in full are the weights that the checkpoint lacked, and no others: peft's own task type would guess them by name
and leave the new pooler of a DeBERTa-v3 random and frozen. In the end the adapters are added to the weights, in fp32:
what is published needs no peft. The adapters are kept too.
"""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from xxhash import xxh3_128

from job import config
from job.errors import Refused
from job.model import depth

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
"""File in which peft looks for the weights of an adapter."""


class Adapter:
    """The adapters of a model.

    Attributes:
        base: digest of the weights that are not trained, as they were loaded.
    """

    def __init__(self, wrapped: PeftModel, name: str, base: str) -> None:
        """`name`: of the base model, for those who load the adapter."""
        self.base = base
        self._wrapped, self._name = wrapped, name
        self._trained: dict[str, torch.Tensor] = {}

    def describe(self) -> str:
        """What is trained, in words."""
        adapted: Any = self._wrapped.peft_config["default"]
        trained, all_of_them = (
            sum(p.numel() for p in self._wrapped.parameters() if p.requires_grad or not only) for only in (True, False)
        )
        new = f" and {', '.join(adapted.modules_to_save)}" if adapted.modules_to_save else ""
        return (f"rank {adapted.r} in {len(_layers(self._wrapped))} linear layers{new}: {trained:,} of "
                f"{all_of_them:,} weights are trained")  # fmt: skip

    def hold_base_in_bf16(self) -> None:
        """Keep the weights of the adapted layers in bf16, in which autocast computes them anyway: half the memory."""
        for layer in _layers(self._wrapped):
            layer.weight.data = layer.weight.data.to(torch.bfloat16)

    def merge(self) -> None:
        """Add the adapters to the weights, in fp32, and remove them from the model; they are kept for `save`."""
        from peft import get_peft_model_state_dict

        found = get_peft_model_state_dict(self._wrapped, save_embedding_layers=False)
        self._trained = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in found.items()}
        for layer in _layers(self._wrapped):
            layer.weight.data = layer.weight.data.float()
        self._wrapped.merge_and_unload()

    def save(self, folder: Path) -> None:
        """Write what PeftModel.from_pretrained(base model, folder) loads. To be called after `merge`."""
        described = self._wrapped.peft_config["default"]
        described.base_model_name_or_path, described.inference_mode = self._name, True
        described.save_pretrained(str(folder))
        save_file(self._trained, folder / WEIGHTS, {"format": "pt"})


def attach(asked: config.Model, model: PreTrainedModel, new: Collection[str]) -> Adapter:
    """Put adapters into every linear layer of `model`, in place, and freeze all weights but theirs and the `new` ones.

    Args:
        asked: of the run's configuration.
        model: as it was loaded.
        new: names of the weights that the checkpoint did not hold.

    Raises:
        Refused: there is nothing to adapt, the rank is too high, or the new weights cannot be distinguished from
            others.
    """
    from peft import LoraConfig, get_peft_model

    whole = _modules_of(model, new)
    targets = _targets(model, whole)
    _check_rank(asked.lora_rank, targets)
    described = LoraConfig(
        r=asked.lora_rank,
        lora_alpha=alpha(asked),
        lora_dropout=asked.lora_dropout,
        target_modules=sorted(targets),
        modules_to_save=whole or None,
    )
    base = digest(model.state_dict(), new)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False but the target module is `Conv1D`")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        wrapped = get_peft_model(model, described)
    return Adapter(wrapped, asked.model_name_or_path, base)


def alpha(asked: config.Model) -> int:
    """peft's lora_alpha: the adapters' output is multiplied by it and divided by the rank."""
    return 2 * asked.lora_rank if asked.lora_alpha is None else asked.lora_alpha


def is_in(model: torch.nn.Module) -> bool:
    """Whether a model holds adapters."""
    return hasattr(model, "peft_config")


def digest(weights: Mapping[str, torch.Tensor], left_out: Collection[str]) -> str:
    """Of names, shapes and values of all weights but those that are left out."""
    found = xxh3_128()
    for name in sorted(weights.keys() - set(left_out)):
        tensor = weights[name].detach().cpu().contiguous()
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _layers(model: torch.nn.Module) -> list[Any]:
    """The frozen linear layers that have an adapter."""
    from peft.tuners.lora import LoraLayer

    return [module.get_base_layer() for module in model.modules() if isinstance(module, LoraLayer)]


def _modules_of(model: PreTrainedModel, new: Collection[str]) -> list[str]:
    """The modules that consist of new weights.

    peft finds modules by the ends of their names: one of the head that ends likewise (DistilBERT's pre_classifier,
    where only the classifier is new) is trained in full too.

    Raises:
        Refused: they would hold, or be taken for, weights of the pretrained model.
    """
    holding = {name.rpartition(".")[0] for name in new}
    found: list[str] = []
    for name, _ in model.named_modules():  # a module comes before those in it
        if name in holding or name.endswith(tuple(holding - {""})):
            found += [name] if not name.startswith(tuple(f"{outer}." for outer in found)) else []
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    body = sorted({f"{prefix}{name}" for name, _ in model.base_model.named_parameters()} - set(new))
    for name in found:
        taken = next((other for other in body if not name or other.startswith(f"{name}.")), None)
        if taken is not None:
            raise Refused(f"--lora_rank: the new weights of {type(model).__name__} cannot be distinguished from "
                          f"{taken}: train it without --lora_rank")  # fmt: skip
    return sorted(found)


def _targets(model: PreTrainedModel, whole: Collection[str]) -> dict[str, Any]:
    """The linear layers that are adapted, by name: all but those that are trained in full. Refused if no layer of the
    model has one."""
    from transformers.pytorch_utils import Conv1D

    within = tuple(f"{name}." for name in whole)
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and not f"{name}.".startswith(within)
    }
    depths = depth.depths(model)
    if not any(0 < depths.of.get(f"{name}.weight", 0) <= max(depths.layers, 1) for name in found):
        raise Refused(f"--lora_rank: the layers of {type(model).__name__} hold no linear layers: train it without "
                      "--lora_rank")  # fmt: skip
    return found


def _check_rank(rank: int, targets: Mapping[str, Any]) -> None:
    """Refused if the adapters would have as many weights as the layers that they adapt."""
    layers = sum(layer.weight.numel() for layer in targets.values())
    most = layers // sum(sum(layer.weight.shape) for layer in targets.values())
    if rank > most:
        raise Refused(f"--lora_rank {rank}: the adapters would have more weights than the layers that they adapt "
                      f"({layers:,}): take at most {most}, or train without --lora_rank")  # fmt: skip
