"""Adapters in models of many families: what is trained, what it computes, and what is left when they are merged."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from job.config import Model
from job.config.tasks import SINGLE_LABEL, Task
from job.errors import Refused
from job.model import loading, lora
from job.model.lora import Adapter
from tests.support import families

TASK = Task(SINGLE_LABEL, ("a", "b", "c"))
IDS = torch.tensor([[5, 6, 7, 8, 9, 1], [9, 8, 7, 6, 5, 1]])
"""The last one is the end token that the head of a T5 reads."""
HEADS = {
    "bert": {"classifier"},
    "roberta": {"classifier.dense", "classifier.out_proj"},
    "distilbert": {"classifier", "pre_classifier"},
    "modernbert": {"classifier", "head.dense", "head.norm"},
    "deberta-v2": {"classifier", "pooler.dense"},
    "albert": {"classifier"},
    "gpt2": {"score"},
    "llama": {"score"},
    "qwen3": {"score"},
    "t5": {"classification_head.dense", "classification_head.out_proj"},
    "gemma3": {"score"},
}
"""Modules whose weights a model lacks that was not fine-tuned."""


def adapted(folder: Path, **asked: Any) -> tuple[Any, Adapter]:
    """The model in `folder` with adapters."""
    settings = Model(model_name_or_path=str(folder), **{"lora_rank": 2, **asked})
    torch.manual_seed(1)
    model, new = loading.load(settings, loading.load_config(settings), TASK, 0)
    return model, lora.attach(settings, model, new)


def trained(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def disturb(model: Any) -> None:
    """Give every trained weight another value, as training would: adapters start as zero."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        return model.eval()(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits


@pytest.mark.parametrize("family", sorted(HEADS))
def test_trained_in_full_is_what_the_checkpoint_lacks_and_every_linear_layer_has_an_adapter(
    family: str, tmp_path: Path
) -> None:
    families.make(family, tmp_path)
    plain = families.network(family, head=True)
    model, _ = adapted(tmp_path)
    in_full = {name for name in trained(model) if "lora_" not in name}
    assert {re.sub(r"\.modules_to_save\.default\.\w+$", "", name) for name in in_full} == HEADS[family]
    kinds = (torch.nn.Linear, type(families.network("gpt2", head=False).h[0].mlp.c_fc))
    linear = {name for name, module in plain.named_modules() if isinstance(module, kinds)} - HEADS[family]
    assert {name.partition(".lora_A")[0] for name in trained(model) if "lora_A" in name} == linear
    assert linear


def test_a_fine_tuned_head_is_adapted_like_any_other_layer(tmp_path: Path) -> None:
    families.make("bert", tmp_path, head=True, num_labels=3)
    model, _ = adapted(tmp_path)
    assert all("lora_" in name for name in trained(model))
    assert "classifier.lora_A.default.weight" in trained(model)


def test_a_head_of_another_size_is_new_and_so_is_what_peft_takes_for_it(tmp_path: Path) -> None:
    """By the ends of their names: without care the adapter of pre_classifier would be trained and lost."""
    families.make("distilbert", tmp_path, head=True, num_labels=5)
    model, _ = adapted(tmp_path)
    in_full = {name for name in trained(model) if "lora_" not in name}
    assert {name.partition(".modules_to_save")[0] for name in in_full} == {"classifier", "pre_classifier"}
    assert not any("classifier.lora" in name for name in trained(model))


@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "deberta-v2", "gpt2", "qwen3", "t5", "albert"])
def test_the_merged_model_computes_what_the_adapters_did(family: str, tmp_path: Path) -> None:
    families.make(family, tmp_path)
    model, adapter = adapted(tmp_path, lora_alpha=3)
    untouched = logits(model)
    disturb(model)
    before = logits(model)
    names = set(families.network(family, head=True).state_dict())
    adapter.merge()
    assert not lora.is_in(model)
    assert set(model.state_dict()) == names, "a plain Transformers model"
    torch.testing.assert_close(logits(model), before, rtol=1e-5, atol=1e-5)
    assert (before - untouched).abs().max() > 0.05, "the adapters do something"


def test_the_kept_adapter_on_its_base_is_the_merged_model(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    families.make("deberta-v2", tmp_path / "base")
    model, adapter = adapted(tmp_path / "base", lora_dropout=0.3)
    disturb(model)
    adapter.merge()
    (tmp_path / "adapter").mkdir()
    adapter.save(tmp_path / "adapter")
    saved = list((tmp_path / "adapter").iterdir())
    assert {path.suffix for path in saved} == {".json", ".safetensors"}
    assert len({path.stat().st_mode for path in saved}) == 1, "safetensors makes its files private"
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    loaded = PeftModel.from_pretrained(base, tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-5, atol=1e-5)
    assert loaded.peft_config["default"].base_model_name_or_path == str(tmp_path / "base")


def test_a_base_in_bf16_computes_what_autocast_makes_of_one_in_fp32(tmp_path: Path) -> None:
    families.make("bert", tmp_path)
    model, adapter = adapted(tmp_path)
    disturb(model)
    with torch.autocast("cpu", torch.bfloat16):
        before = logits(model)
        adapter.hold_base_in_bf16()
        assert torch.equal(logits(model), before)
    kinds = {name: p.dtype for name, p in model.named_parameters()}
    assert kinds["bert.encoder.layer.0.attention.self.query.base_layer.weight"] == torch.bfloat16
    assert {dtype for name, dtype in kinds.items() if "base_layer.weight" not in name} == {torch.float32}
    adapter.merge()
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_adapters_are_added_in_fp32_to_a_base_in_bf16(tmp_path: Path) -> None:
    families.make("bert", tmp_path)
    model, adapter = adapted(tmp_path)
    layer = model.bert.encoder.layer[0].attention.self.query
    with torch.no_grad():
        layer.lora_B["default"].weight.fill_(1e-4)
    expected = layer.base_layer.weight.to(torch.bfloat16).float() + layer.get_delta_weight("default")
    adapter.hold_base_in_bf16()
    adapter.merge()
    found = model.bert.encoder.layer[0].attention.self.query.weight
    assert torch.equal(found, expected)
    assert not torch.equal(found, expected.to(torch.bfloat16).float()), "in bf16 it would have been lost"


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_gradient_checkpointing_with_frozen_embeddings_gives_the_same_gradients(family: str, tmp_path: Path) -> None:
    families.make(family, tmp_path)
    found = []
    for checkpointing in (False, True):
        model, _ = adapted(tmp_path, gradient_checkpointing=checkpointing)
        disturb(model)
        model.train()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits.square().sum().backward()
        assert {name for name, p in model.named_parameters() if p.grad is not None} == trained(model)
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        assert torch.isfinite(logits(model)).all(), "and inference works"
    plain, checkpointed = found
    for name in plain:
        torch.testing.assert_close(checkpointed[name], plain[name])
    assert max(float(gradient.abs().max()) for name, gradient in plain.items() if "lora_A" in name) > 1e-3


def test_the_digest_of_the_base_is_that_of_its_weights_alone(tmp_path: Path) -> None:
    families.make("bert", tmp_path)
    _, adapter = adapted(tmp_path)
    torch.manual_seed(5)
    model, again = adapted(tmp_path, lora_rank=4)
    assert again.base == adapter.base, "neither the new head nor the adapters count"
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    name = "bert.embeddings.word_embeddings.weight"
    before = lora.digest(weights, ())
    weights[name][3, 3] += 1e-6
    assert lora.digest(weights, ()) != before
    assert lora.digest(weights, [name]) == lora.digest(model.state_dict(), [name])


def test_a_model_whose_layers_are_not_linear_is_rejected(tmp_path: Path) -> None:
    from transformers import SqueezeBertConfig, SqueezeBertModel

    grouped: dict[str, Any] = {
        f"{name}_groups": 1 for name in ("q", "k", "v", "intermediate", "output", "post_attention")
    }
    config = SqueezeBertConfig(
        vocab_size=40, embedding_size=16, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, **grouped,
    )  # fmt: skip
    SqueezeBertModel(config).save_pretrained(tmp_path)
    with pytest.raises(Refused, match="--lora_rank: the layers of SqueezeBertForSequenceClassification hold no linear"):
        adapted(tmp_path)


def test_layers_that_share_a_weight_are_rejected() -> None:
    """Merged, the weight would hold the adapters of both layers, in each of them."""
    model = families.network("bert", head=True)
    first, second = model.bert.encoder.layer
    second.output.dense.weight = first.output.dense.weight
    with pytest.raises(Refused, match=r"layer\.0\.output\.dense and .*layer\.1\.output\.dense of .* share a weight"):
        lora.attach(Model(lora_rank=2), model, [])


def test_a_rank_that_saves_nothing_is_rejected_with_the_highest_that_does(tmp_path: Path) -> None:
    families.make("bert", tmp_path)
    with pytest.raises(Refused, match=r"--lora_rank 64: the adapters would have more weights than .*: take at most 9,"):
        adapted(tmp_path, lora_rank=64)
    model, _ = adapted(tmp_path, lora_rank=9)
    base = sum(p.numel() for name, p in model.named_parameters() if "base_layer.weight" in name)
    assert sum(p.numel() for name, p in model.named_parameters() if "lora_" in name) <= base
    with pytest.raises(Refused):
        adapted(tmp_path, lora_rank=10)


def test_new_weights_that_cannot_be_distinguished_from_pretrained_ones_are_rejected(tmp_path: Path) -> None:
    families.make("bert", tmp_path)
    model = families.network("bert", head=True)
    for new in ("bert.encoder.layer.0.output.LayerNorm.weight", "scale"):
        with pytest.raises(Refused, match="--lora_rank: the new weights of BertForSequenceClassification cannot be"):
            lora.attach(Model(lora_rank=2), copy.deepcopy(model), [new])


def test_what_is_trained_is_said(tmp_path: Path) -> None:
    families.make("bert", tmp_path)
    model, adapter = adapted(tmp_path)
    numbers = [sum(p.numel() for p in model.parameters() if p.requires_grad or not only) for only in (True, False)]
    assert adapter.describe() == (
        f"rank 2 in 13 linear layers and classifier: {numbers[0]:,} of {numbers[1]:,} weights are trained"
    )
