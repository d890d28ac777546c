"""Packed forward passes: the rows of a micro-batch are concatenated to [1, T], so there is no padding to compute.

Every layer except attention processes tokens independently, so only attention must know the row boundaries. An
attention function is registered with Transformers for that, without a mask function: Transformers then makes no masks.
Hooks pass the packed tokens to the base model, and the usual shapes to the model around it: padded token ids before the
base model, and hidden states [b, L, H] after it. So every head works unchanged, and no model family is named here.

The class of a model does not tell whether it can be packed (an embedding may depend on neighbouring tokens). So a run
compares the packed form with rows computed alone before it starts (job/batching/forms.py).

    b  rows     L  length of the longest row     T  tokens of all rows     H  hidden channels

Alternatives considered: with position ids that restart at each row, Transformers separates the rows of causal models
only; in other models rows silently attend to each other. Flash attention needs CUDA, a package and half precision.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from job.model import last_layer, packed_attention
from job.model.packed_attention import Layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "muster_packed"
TOKEN_INPUTS = ("input_ids", "position_ids", "token_type_ids")


def obstacle(model: PreTrainedModel) -> str | None:
    """Why this model cannot be packed, judging by class and configuration; None if nothing is known against it."""
    name = type(model).__name__
    if getattr(model.config, "is_encoder_decoder", False):
        return f"{name} has an encoder and a decoder"
    if not type(model)._can_set_attn_implementation():
        return f"{name} has attention code of its own"
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        return f"{name} takes no position ids"
    if any(isinstance(module, torch.nn.Conv1d) and module.kernel_size != (1,) for module in model.base_model.modules()):
        return f"{name} has convolutions over neighbouring tokens"  # their error may be small until it is trained
    if getattr(model.config, "token_dropout", False):  # ESM: rows without mask tokens, as in the check, do not show it
        return f"{name} scales the embeddings of a row by its share of mask tokens"
    return None


def padding_position(model: PreTrainedModel) -> int | None:
    """The index of the padding token in RoBERTa-like models, whose positions start after it; None: they start at 0.

    An ESM with rotary positions has a padding token too, but its positions start at 0.
    """
    embeddings = getattr(model.base_model, "embeddings", None)
    if getattr(embeddings, "position_embeddings", None) is None:
        return None
    return getattr(embeddings, "padding_idx", None)


def enable(model: PreTrainedModel) -> Callable[[], None]:
    """Make `model` accept packed inputs, and no others. What is saved of it does not change.

    Its inputs are then int64[1, T] `input_ids`, `position_ids` and, if the model has them, `token_type_ids`; and
    `packed`, the Layout.

    Returns:
        A function that undoes this.
    """
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, packed_attention.forward)
    restore_attention = _restorer(model)
    model.set_attn_implementation(NAME)
    base, inputs = model.base_model, _Inputs()
    hooks = [
        model.register_forward_pre_hook(inputs.pad, with_kwargs=True),
        base.register_forward_pre_hook(inputs.pack, with_kwargs=True),
        *_register_unpacking(base, inputs),
    ]
    restore_layer = last_layer.keep_first_tokens(model)

    def disable() -> None:
        for hook in hooks:
            hook.remove()
        restore_layer()
        restore_attention()

    return disable


def _restorer(model: PreTrainedModel) -> Callable[[], None]:
    """A function that restores the attention implementation of each part of a model."""
    configs: Any = {id(m.config): m.config for m in model.modules() if hasattr(m, "config")}.values()
    before = [(config, config._attn_implementation) for config in configs if hasattr(config, "_attn_implementation")]

    def restore() -> None:
        for config, name in before:
            config._attn_implementation_internal = name

    return restore


@dataclass
class _Inputs:
    """Passes the packed inputs of a forward pass from the model's hook to the hooks of its base model."""

    tokens: dict[str, torch.Tensor] = field(default_factory=dict)
    layout: Layout | None = None

    def pad(self, model: Any, args: Any, kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        """Before the model: packed inputs -> padded token ids and mask; some heads search them for the last token."""
        if args or "packed" not in kwargs:
            raise RuntimeError("this model takes packed inputs only")
        layout: Layout = kwargs["packed"]
        self.layout = layout
        self.tokens = {name: kwargs[name] for name in TOKEN_INPUTS if name in kwargs}
        pad_token_id = getattr(model.config.get_text_config(), "pad_token_id", None)
        ids = layout.pad(kwargs["input_ids"][0], pad_token_id or 0)
        others = {name: value for name, value in kwargs.items() if name not in (*TOKEN_INPUTS, "packed")}
        return (), others | {"input_ids": ids, "attention_mask": layout.mask}

    def pack(self, base: Any, args: Any, kwargs: dict[str, Any]) -> tuple[tuple[()], dict[str, Any]]:
        """Before the base model: the packed tokens take the place of the padded ones."""
        if len(args) > 1:
            raise RuntimeError("the model passes more than its token ids to its base model by position")
        use_cache = {"use_cache": False} if "use_cache" in inspect.signature(base.forward).parameters else {}
        return (), kwargs | self.tokens | use_cache | {"attention_mask": None, "packed": self.layout}

    def unpack(self, hidden: torch.Tensor) -> torch.Tensor:
        """Hidden states [1, T, H] -> [b, L, H]; or, with first tokens only, [1, b, H] -> [b, 1, H]."""
        assert self.layout is not None
        if hidden.shape[1] < len(self.layout.places):
            return hidden.transpose(0, 1)
        return self.layout.pad(hidden[0])


def _register_unpacking(base: Any, inputs: _Inputs) -> list[Any]:
    """Register the hooks that unpack: after the encoder if a pooler follows it, else after the base model."""

    def after(module: Any, args: Any, output: Any) -> Any:
        if isinstance(output, torch.Tensor):
            output = inputs.unpack(output)
        elif isinstance(output, tuple):
            output = (inputs.unpack(output[0]), *output[1:])
        else:
            output.last_hidden_state = inputs.unpack(output.last_hidden_state)
        inputs.tokens, inputs.layout = {}, None
        return output

    def before(module: Any, args: Any) -> Any:
        return (inputs.unpack(args[0]), *args[1:])

    pooler, encoder = getattr(base, "pooler", None), getattr(base, "encoder", None)
    if pooler is None:
        return [base.register_forward_hook(after)]
    if encoder is not None and not isinstance(encoder, torch.nn.ModuleList):
        return [encoder.register_forward_hook(after)]
    return [pooler.register_forward_pre_hook(before), base.register_forward_hook(after)]
