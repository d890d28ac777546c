"""The layer that each parameter belongs to, in models of many families."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from job.model.depth import Depths, depths
from tests.support import families

LAYERS = {
    # Layers of the tiny models, where they are not two: an encoder's and a decoder's; shared ones; lists of lists.
    "albert": 1,
    "bart": 2,
    "t5": 4,
}
PLACES = {
    "bert": {"bert.embeddings.LayerNorm.weight": 0, "bert.encoder.layer.1.output.dense.weight": 2,
             "bert.pooler.dense.weight": 3, "classifier.weight": 3},
    "distilbert": {"distilbert.embeddings.word_embeddings.weight": 0,
                   "distilbert.transformer.layer.0.ffn.lin1.bias": 1, "pre_classifier.weight": 3},
    "modernbert": {"model.embeddings.norm.weight": 0, "model.layers.1.mlp.Wo.weight": 2, "model.final_norm.weight": 3,
                   "head.dense.weight": 3},
    "deberta-v2": {"deberta.encoder.rel_embeddings.weight": 0, "pooler.dense.weight": 3,
                   "deberta.encoder.layer.0.attention.self.query_proj.weight": 1},
    "albert": {"albert.encoder.embedding_hidden_mapping_in.weight": 0, "albert.pooler.weight": 2,
               "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn.weight": 1},
    "gpt2": {"transformer.wpe.weight": 0, "transformer.h.0.ln_1.weight": 1, "transformer.ln_f.weight": 3,
             "score.weight": 3},
    "llama": {"model.embed_tokens.weight": 0, "model.layers.1.mlp.up_proj.weight": 2, "model.norm.weight": 3},
    "qwen3": {"model.embed_tokens.weight": 0, "model.layers.0.self_attn.q_norm.weight": 1, "score.weight": 3},
    "opt": {"model.decoder.embed_positions.weight": 0, "model.decoder.final_layer_norm.weight": 3},
    "mpnet": {"mpnet.encoder.relative_attention_bias.weight": 0},
    "xlnet": {"transformer.mask_emb": 0, "transformer.layer.1.rel_attn.r_w_bias": 2, "logits_proj.weight": 3},
    "funnel": {"funnel.embeddings.layer_norm.weight": 0, "funnel.encoder.blocks.1.0.ffn.linear_1.weight": 2},
    "bart": {"model.decoder.layernorm_embedding.weight": 0, "model.encoder.layers.0.fc1.weight": 1,
             "model.decoder.layers.0.fc1.weight": 2, "classification_head.dense.weight": 3},
    "t5": {"transformer.shared.weight": 0, "transformer.encoder.block.1.layer.0.SelfAttention.q.weight": 2,
           "transformer.encoder.final_layer_norm.weight": 2, "transformer.decoder.final_layer_norm.weight": 5,
           "transformer.decoder.block.1.layer.2.DenseReluDense.wi.weight": 4,
           "transformer.encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight": 1},
}  # fmt: skip


def on_nowhere(family: str) -> Any:
    with torch.device("meta"):
        return families.network(family, head=True)


def without_vision(model: Any) -> Any:
    """As a run leaves it: what is not used is frozen."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("vision" not in name and "multi_modal" not in name)
    return model


@pytest.mark.parametrize("family", sorted(families.FAMILIES))
def test_every_layer_of_every_family_has_its_number(family: str) -> None:
    model = without_vision(on_nowhere(family))
    found = depths(model)
    layers = LAYERS.get(family, 2)
    assert found.layers == layers
    assert found.of.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(found.of.values()) == set(range(layers + 2)), "embeddings, every layer and the head"
    embeddings = {id(p) for p in model.get_input_embeddings().parameters()}
    for name, parameter in model.named_parameters():
        if id(parameter) in embeddings:
            assert found.of[name] == 0, name
        elif not name.startswith(model.base_model_prefix + "."):
            assert found.of[name] == layers + 1, name


@pytest.mark.parametrize("family", sorted(PLACES))
def test_a_parameter_has_the_depth_of_its_layer(family: str) -> None:
    of = depths(on_nowhere(family)).of
    assert {name: of[name] for name in PLACES[family]} == PLACES[family]


def test_layers_that_share_their_weights_are_one() -> None:
    assert depths(on_nowhere("albert")).sharing == 2
    assert depths(on_nowhere("bert")).sharing is None
    assert depths(on_nowhere("t5")).sharing is None


def test_frozen_parameters_have_no_depth() -> None:
    model = on_nowhere("bert")
    model.bert.embeddings.requires_grad_(False)
    model.bert.encoder.layer[0].requires_grad_(False)
    assert min(depths(model).of.values()) == 2


def test_a_model_without_a_list_of_layers_has_none() -> None:
    class Bag(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.score = torch.nn.Embedding(3, 2), torch.nn.Linear(2, 2)
            self.config: Any = type("Config", (), {"get_text_config": lambda self: self})()

        @property
        def base_model(self) -> torch.nn.Module:
            return self

    found = depths(Bag())  # type: ignore[arg-type]
    assert found == Depths(0, None, {"embedding.weight": 0, "score.weight": 1, "score.bias": 1})
