"""Computes the last layer of BERT-like models for the first token of each row only: their heads read no other token.

This needs a table of model classes. It makes the packed forward pass faster and does not change its result; a model
that is not in the table computes its last layer in full.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from job.model.attention_spec import AttentionSpec
from job.model.packed_attention import Layout, attend

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def keep_first_tokens(model: PreTrainedModel) -> Callable[[], None]:
    """Replace the forward pass of a packed model's last layer, if its class is in FAMILIES.

    Returns:
        A function that restores it.
    """
    encoder_name, forward = FAMILIES.get(type(model).__name__, ("", None))
    if (
        forward is None
        or getattr(model.config, "is_decoder", False)
        or not type(model).__module__.startswith("transformers.models.")
    ):
        return lambda: None
    last = getattr(model.base_model, encoder_name).layer[-1]
    last.forward = partial(forward, last)

    def restore() -> None:
        del last.forward

    return restore


def _bert(layer: Any, hidden: torch.Tensor, *args: Any, packed: Layout, **kwargs: Any) -> torch.Tensor:
    """BERT, RoBERTa or ELECTRA: [1, T, H] -> [1, b, H]."""
    attention, first = layer.attention.self, _first_tokens(hidden, packed)
    context = _attend(attention.query(first), attention.key(hidden), attention.value(hidden), packed, attention)
    return layer.feed_forward_chunk(layer.attention.output(context, first))


def _distilbert(layer: Any, hidden: torch.Tensor, *args: Any, packed: Layout, **kwargs: Any) -> torch.Tensor:
    attention, first = layer.attention, _first_tokens(hidden, packed)
    context = _attend(attention.q_lin(first), attention.k_lin(hidden), attention.v_lin(hidden), packed, attention)
    attended = layer.sa_layer_norm(attention.out_lin(context) + first)
    return layer.output_layer_norm(layer.ffn(attended) + attended)


def _first_tokens(hidden: torch.Tensor, layout: Layout) -> torch.Tensor:
    return hidden.index_select(1, layout.bounds[:-1])


def _attend(first: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Layout, module: Any) -> torch.Tensor:
    """Projections [1, b, H] and [1, T, H] -> [1, b, H]; `module`: the attention module."""
    q, k, v = (x[0].unflatten(-1, (-1, module.attention_head_size)) for x in (first, key, value))
    spec = AttentionSpec(module.dropout.p if module.training else 0.0, module.attention_head_size**-0.5)
    return attend(q, k, v, layout, spec).flatten(1)[None]


FAMILIES: dict[str, tuple[str, Callable[..., torch.Tensor]]] = {
    "BertForSequenceClassification": ("encoder", _bert),
    "RobertaForSequenceClassification": ("encoder", _bert),
    "XLMRobertaForSequenceClassification": ("encoder", _bert),
    "CamembertForSequenceClassification": ("encoder", _bert),
    "ElectraForSequenceClassification": ("encoder", _bert),
    "DistilBertForSequenceClassification": ("transformer", _distilbert),
}
"""Model class -> (attribute that holds its encoder, forward pass of its last layer)."""
