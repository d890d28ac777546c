"""Low-rank adapters (LoRA, arXiv 2106.09685) with peft: each linear layer is frozen and gets two small trained
matrices.

The adapters are injected into the Transformers model itself, so packing, evaluation and saving need no changes. Weights
that the checkpoint lacks are trained in full: peft's task types would guess them by name and leave the new pooler of a
DeBERTa-v3 random and frozen. After training, the adapters are merged into the weights in fp32, so the published model
does not need peft. The adapters are saved too.
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
from job.runtime import files

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

WEIGHTS = "adapter_model.safetensors"
"""The file in which peft expects the weights of an adapter."""


class Adapter:
    """The adapters of a model.

    Attributes:
        base: digest of the frozen weights as loaded.
    """

    def __init__(self, wrapped: PeftModel, name: str, base: str) -> None:
        """`name`: the base model's name, which is saved with the adapter."""
        self.base = base
        self._wrapped, self._name = wrapped, name
        self._trained: dict[str, torch.Tensor] = {}

    def describe(self) -> str:
        """A description of what is trained, for the log."""
        adapted: Any = self._wrapped.peft_config["default"]
        total = sum(p.numel() for p in self._wrapped.parameters())
        trained = sum(p.numel() for p in self._wrapped.parameters() if p.requires_grad)
        new = f" and {', '.join(adapted.modules_to_save)}" if adapted.modules_to_save else ""
        return (f"rank {adapted.r} in {len(_layers(self._wrapped))} linear layers{new}: {trained:,} of "
                f"{total:,} weights are trained")  # fmt: skip

    def hold_base_in_bf16(self) -> None:
        """Cast the weights of the adapted layers to bf16, as autocast does anyway: this halves their memory."""
        for layer in _layers(self._wrapped):
            layer.weight.data = layer.weight.data.to(torch.bfloat16)

    def merge(self) -> None:
        """Merge the adapters into the weights in fp32 and remove them from the model; `save` can still write them."""
        from peft import get_peft_model_state_dict

        state = get_peft_model_state_dict(self._wrapped, save_embedding_layers=False)
        self._trained = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()}
        for layer in _layers(self._wrapped):
            layer.weight.data = layer.weight.data.float()
        self._wrapped.merge_and_unload()

    def save(self, folder: Path) -> None:
        """Write a folder for PeftModel.from_pretrained(base model, folder). Call it after `merge`."""
        lora_config = self._wrapped.peft_config["default"]
        lora_config.base_model_name_or_path, lora_config.inference_mode = self._name, True
        lora_config.save_pretrained(str(folder))
        save_file(self._trained, folder / WEIGHTS, {"format": "pt"})
        files.set_default_mode(folder)


def attach(settings: config.Model, model: PreTrainedModel, new: Collection[str]) -> Adapter:
    """Inject adapters into every linear layer of `model`, in place, and freeze all weights except adapters and `new`.

    Args:
        settings: the run's model settings.
        model: the model as loaded.
        new: names of the weights that the checkpoint lacks.

    Raises:
        Refused: there is nothing to adapt, the rank is too high, or the new weights cannot be separated from others.
    """
    from peft import LoraConfig, get_peft_model

    new_modules = _modules_of(model, new)
    targets = _targets(model, new_modules)
    _check_rank(settings.lora_rank, targets)
    lora_config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=alpha(settings),
        lora_dropout=settings.lora_dropout,
        target_modules=sorted(targets),
        modules_to_save=new_modules or None,
    )
    base = digest(model.state_dict(), new)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False but the target module is `Conv1D`")
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        wrapped = get_peft_model(model, lora_config)
    return Adapter(wrapped, settings.model_name_or_path, base)


def alpha(settings: config.Model) -> int:
    """peft's lora_alpha: the adapters' output is scaled by alpha / rank. The default is twice the rank."""
    return 2 * settings.lora_rank if settings.lora_alpha is None else settings.lora_alpha


def is_in(model: torch.nn.Module) -> bool:
    """Whether a model has adapters."""
    return hasattr(model, "peft_config")


def digest(weights: Mapping[str, torch.Tensor], excluded: Collection[str]) -> str:
    """A hash of the names, shapes and values of all weights except the excluded ones."""
    hasher = xxh3_128()
    for name in sorted(weights.keys() - set(excluded)):
        tensor = weights[name].detach().cpu().contiguous()
        hasher.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        hasher.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return hasher.hexdigest()


def _layers(model: torch.nn.Module) -> list[Any]:
    """The frozen linear layers that have adapters."""
    from peft.tuners.lora import LoraLayer

    return [module.get_base_layer() for module in model.modules() if isinstance(module, LoraLayer)]


def _modules_of(model: PreTrainedModel, new: Collection[str]) -> list[str]:
    """The modules that consist of new weights.

    peft selects modules by name suffix. A module of the head with the same suffix is therefore trained in full too,
    such as DistilBERT's pre_classifier if only the classifier is new.

    Raises:
        Refused: one of these modules contains pretrained weights of the base model.
    """
    parents = {name.rpartition(".")[0] for name in new}
    modules: list[str] = []
    for name, _ in model.named_modules():  # outer modules come first
        if name in parents or name.endswith(tuple(parents - {""})):
            modules += [name] if not name.startswith(tuple(f"{outer}." for outer in modules)) else []
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    body = sorted({f"{prefix}{name}" for name, _ in model.base_model.named_parameters()} - set(new))
    for name in modules:
        pretrained = next((other for other in body if not name or other.startswith(f"{name}.")), None)
        if pretrained is not None:
            raise Refused(f"--lora_rank: the new weights of {type(model).__name__} cannot be distinguished from "
                          f"{pretrained}: train it without --lora_rank")  # fmt: skip
    return sorted(modules)


def _targets(model: PreTrainedModel, new_modules: Collection[str]) -> dict[str, Any]:
    """The linear layers to adapt, by name: all except those that are trained in full.

    Refused if no transformer layer contains one, or if two share a weight.
    """
    from transformers.pytorch_utils import Conv1D

    excluded = tuple(f"{name}." for name in new_modules)
    targets = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and not f"{name}.".startswith(excluded)
    }
    _refuse_shared_weights(model, targets)
    depths = depth.depths(model)
    if not any(0 < depths.of.get(f"{name}.weight", 0) <= max(depths.layers, 1) for name in targets):
        raise Refused(f"--lora_rank: the layers of {type(model).__name__} hold no linear layers: train it without "
                      "--lora_rank")  # fmt: skip
    return targets


def _refuse_shared_weights(model: PreTrainedModel, targets: Mapping[str, Any]) -> None:
    """Refused if two layers share a weight, as in Zamba: each has its own adapter, and merging adds both to the one."""
    first: dict[int, str] = {}
    for name, layer in targets.items():
        other = first.setdefault(id(layer.weight), name)
        if other != name:
            raise Refused(f"--lora_rank: {other} and {name} of {type(model).__name__} share a weight, which "
                          "cannot hold the adapters of both: train it without --lora_rank")  # fmt: skip


def _check_rank(rank: int, targets: Mapping[str, Any]) -> None:
    """Refused if the adapters would have more weights than the layers that they adapt."""
    layers = sum(layer.weight.numel() for layer in targets.values())
    most = layers // sum(sum(layer.weight.shape) for layer in targets.values())
    if rank > most:
        raise Refused(f"--lora_rank {rank}: the adapters would have more weights than the layers that they adapt "
                      f"({layers:,}): take at most {most}, or train without --lora_rank")  # fmt: skip
