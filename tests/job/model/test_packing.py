"""A packed forward pass gives what the padded one gives, without the padding."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset

from job.batching import collate
from job.batching.collate import Collate, PackedFormat, Padding
from job.config import Model
from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, Task
from job.data.dataset import Split
from job.model import cpu_attention, loading, packed_attention, packing
from job.model.attention_spec import AttentionSpec
from job.model.outputs import outputs_of
from job.model.packed_attention import Layout
from tests.support.pairs import LENGTHS, NAMES, PAD, enlarge_weights, network, pairs
from tests.support.tiny import tiny_model

ARCHITECTURES = ["bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"]


def both(network: Any, split: Split, round_to: int = 1) -> tuple[Collate, Collate]:
    """Collates for a model that takes packed inputs, and for one that takes padded ones."""
    position = packing.padding_position(network)
    form = PackedFormat(PAD, position, round_to, longest=max(LENGTHS), with_lengths=True)
    return partial(collate.packed, split, form), partial(collate.padded, split, Padding(PAD))


def compared(
    network: Any, split: Split, kind: Kind, rows: np.ndarray, round_to: int = 1
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Logits and gradients of some rows, packed and padded."""
    packed, padded = both(network, split, round_to)
    expected = logits_and_gradients(network, padded, kind, rows)
    disable = packing.enable(network)
    found = logits_and_gradients(network, packed, kind, rows)
    disable()
    return found, expected


def logits_and_gradients(network: Any, batch: Collate, kind: Kind, rows: np.ndarray) -> dict[str, torch.Tensor]:
    network.zero_grad()
    inputs, labels = batch(rows)
    logits = network(**inputs).logits
    assert labels is not None
    outputs_of(kind).training_losses(logits, labels, 0.0, None).sum().backward()
    return {"logits": logits.detach(), **{n: p.grad for n, p in network.named_parameters() if p.grad is not None}}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-5, atol=1e-5 * max(1.0, float(value.abs().max())), msg=name
        )


@pytest.mark.parametrize(
    ("architecture", "kind", "round_to"),
    [
        *((architecture, SINGLE_LABEL, 1) for architecture in ARCHITECTURES),
        ("bert", REGRESSION, 64),
        ("distilbert", MULTI_LABEL, 64),
    ],
    ids=str,
)
def test_logits_and_gradients_are_those_of_the_padded_form(
    tmp_path: Path, architecture: str, kind: Kind, round_to: int
) -> None:
    trained = network(tmp_path, architecture, kind)
    split = pairs(kind, architecture)
    rows = np.arange(len(split))
    assert both(trained, split, round_to)[0](rows)[0]["input_ids"].shape[1] % round_to == 0
    packed, padded = compared(trained, split, kind, rows, round_to)
    assert packed["logits"].shape == (len(split), len(NAMES[kind]))
    assert_equal(packed, padded)
    assert max(float(value.abs().max()) for name, value in padded.items() if "query" in name or "q_lin" in name) > 1e-2


@pytest.mark.parametrize("rows", [[0], [7], [7, 8], [1, 2, 3], [6, 0, 8, 1]], ids=str)
def test_any_micro_batch_gives_what_it_gives_padded(tmp_path: Path, rows: list[int]) -> None:
    assert_equal(*compared(network(tmp_path), pairs(SINGLE_LABEL), SINGLE_LABEL, np.array(rows)))


WINDOW = 8
DECODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
OTHERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "llama": {**DECODER, "num_key_value_heads": 2},
    "mistral": {**DECODER, "num_key_value_heads": 1, "sliding_window": WINDOW},
    "modernbert": {**DECODER, "local_attention": WINDOW, "classifier_pooling": "mean"},
    "albert": {**DECODER, "embedding_size": 16},
}


@pytest.mark.parametrize("architecture", OTHERS)
def test_causal_attention_shared_heads_windows_and_other_heads(architecture: str) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(architecture, vocab_size=90, pad_token_id=PAD, num_labels=3, **OTHERS[architecture])
    torch.manual_seed(5)
    trained = AutoModelForSequenceClassification.from_config(config).eval()
    enlarge_weights(trained)
    split = pairs(SINGLE_LABEL, "distilbert")
    packed, padded = compared(trained, split, SINGLE_LABEL, np.arange(len(split)))
    assert_equal(packed, padded)
    assert padded["logits"].std(dim=0).min() > 0.1


def test_a_window_one_token_off_would_show(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_off(query: Any, key: Any, value: Any, lengths: Any, spec: AttentionSpec) -> torch.Tensor:
        wider = spec._replace(window=spec.window and spec.window + 1)
        return cpu_attention.attend(query, key, value, lengths, wider)

    monkeypatch.setattr(packed_attention, "cpu_attention", SimpleNamespace(attend=one_off))
    with pytest.raises(AssertionError):
        test_causal_attention_shared_heads_windows_and_other_heads("mistral")


def test_inputs_that_are_not_packed_are_an_error(tmp_path: Path) -> None:
    trained = network(tmp_path)
    _, padded = both(trained, pairs(SINGLE_LABEL))
    packing.enable(trained)
    with pytest.raises(RuntimeError, match="packed inputs only"):
        trained(**padded(np.arange(2))[0])


@pytest.mark.parametrize("argument", packed_attention.UNSUPPORTED)
def test_attention_of_another_kind_is_an_error(argument: str) -> None:
    x = torch.zeros(1, 1, 2, 4)
    layout = layout_of([2])
    with pytest.raises(NotImplementedError, match=f"Identity calls attention with {argument}"):
        packed_attention.forward(torch.nn.Identity(), x, x, x, None, packed=layout, **{argument: 1.0})
    with pytest.raises(NotImplementedError, match="a mask of its own"):
        packed_attention.forward(torch.nn.Identity(), x, x, x, x, packed=layout)
    with pytest.raises(NotImplementedError, match="no packed layout"):
        packed_attention.forward(torch.nn.Identity(), x, x, x, None)


def layout_of(lengths: list[int]) -> Layout:
    bounds = torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return Layout(tuple(lengths), bounds, max(lengths), mask.long(), mask.flatten().nonzero()[:, 0])


def test_a_model_is_left_as_it_was(tmp_path: Path) -> None:
    trained = network(tmp_path)
    _, padded = both(trained, pairs(SINGLE_LABEL))
    before, kernel = trained(**padded(np.arange(10))[0]).logits, trained.config._attn_implementation
    packing.enable(trained)()
    assert trained.config._attn_implementation == kernel
    assert torch.equal(trained(**padded(np.arange(10))[0]).logits, before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in trained.modules())
    assert "forward" not in vars(trained.bert.encoder.layer[-1])


def test_a_decoder_of_berts_kind_computes_its_last_layer_in_full(tmp_path: Path) -> None:
    trained = network(tmp_path)
    trained.config.is_decoder = True
    packing.enable(trained)
    assert "forward" not in vars(trained.bert.encoder.layer[-1])


@pytest.mark.parametrize(
    ("model_type", "settings", "reason"),
    [
        ("t5", {"d_model": 32, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}, "has an encoder and a decoder"),
        ("deberta-v2", DECODER, "has attention code of its own"),
        ("jamba", {**DECODER, "num_experts": 2}, "has convolutions over neighbouring tokens"),
        ("esm", {**DECODER, "token_dropout": True}, "scales the embeddings of a row by its share of mask tokens"),
    ],
)
def test_what_a_class_and_its_configuration_tell_against_packing(
    model_type: str, settings: dict[str, Any], reason: str
) -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.for_model(model_type, vocab_size=50, pad_token_id=PAD, mask_token_id=4, **settings)
    model = AutoModelForSequenceClassification.from_config(config)
    assert packing.obstacle(model) == f"{type(model).__name__} {reason}"


def with_padding_inside(pad_token_id: int) -> Split:
    """Two rows; the text of the first one contains the padding token."""
    rows = [[2, 7, pad_token_id, 9, 3], [2, 8, 3]]
    dataset = Dataset.from_dict({"input_ids": rows}).with_format("numpy")
    return Split(dataset, np.array([5, 3], dtype=np.int32), np.array([0, 1]), np.arange(2))


def test_a_padding_token_inside_a_text_counts_no_position_in_roberta(tmp_path: Path) -> None:
    trained = network(tmp_path, "roberta")
    split = with_padding_inside(trained.config.pad_token_id)
    assert_equal(*compared(trained, split, SINGLE_LABEL, np.arange(2)))


def test_a_padding_token_inside_a_text_counts_where_positions_are_rotary() -> None:
    from transformers import AutoConfig, AutoModelForSequenceClassification

    settings = {**DECODER, "position_embedding_type": "rotary", "pad_token_id": PAD, "num_labels": 3}
    torch.manual_seed(5)
    trained = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("esm", vocab_size=90, **settings))
    enlarge_weights(trained)
    assert_equal(*compared(trained.eval(), with_padding_inside(PAD), SINGLE_LABEL, np.arange(2)))


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    trained = network(tmp_path)
    packing.enable(trained)
    batch, _ = both(trained, pairs(SINGLE_LABEL))
    plain = logits_and_gradients(trained, batch, SINGLE_LABEL, np.arange(10))
    trained.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trained.train()
    assert_equal(logits_and_gradients(trained, batch, SINGLE_LABEL, np.arange(10)), plain)


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_dropout_differs_each_time_and_repeats_with_the_seed(tmp_path: Path, architecture: str) -> None:
    """In attention alone, where packing has its own."""
    trained = network(tmp_path, architecture, dropout=0.3).train()
    for module in trained.modules():
        if isinstance(module, torch.nn.Dropout) and "Attention" not in type(module).__name__:
            module.p = 0.0
    for layer in trained.modules():
        if hasattr(layer, "attention_head_size"):
            layer.dropout.p = 0.3
    packing.enable(trained)
    inputs, _ = both(trained, pairs(SINGLE_LABEL, architecture))[0](np.arange(10))
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(trained(**inputs).logits)
    assert torch.equal(found[0], found[1])
    assert (found[0] - found[2]).abs().max() > 1e-3
    trained.eval()
    assert torch.equal(trained(**inputs).logits, trained(**inputs).logits)


def test_what_is_saved_does_not_know_of_packing(tmp_path: Path) -> None:
    trained = network(tmp_path)
    trained.save_pretrained(tmp_path / "before")
    packing.enable(trained)
    trained.save_pretrained(tmp_path / "after")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "before" / name).read_bytes() == (tmp_path / "after" / name).read_bytes()


def test_attention_dropout_is_set_by_its_flag_alone(tmp_path: Path) -> None:
    for architecture, name in (("bert", "attention_probs_dropout_prob"), ("distilbert", "attention_dropout")):
        folder = tmp_path / architecture
        tiny_model(folder, architecture=architecture, num_labels=None, dropout=0.1)
        asked = Model(model_name_or_path=str(folder), attention_dropout=0.0)
        loaded = loading.load(asked, loading.load_config(asked), Task(SINGLE_LABEL, NAMES[SINGLE_LABEL]), 0)[0]
        loaded.save_pretrained(folder)
        saved = json.loads((folder / "config.json").read_text())
        assert saved[name] == 0.0
        assert 0.1 in {module.p for module in loaded.modules() if isinstance(module, torch.nn.Dropout)}
        attentions: list[Any] = [module for module in loaded.modules() if hasattr(module, "attention_head_size")]
        assert attentions and all(module.dropout.p == 0.0 for module in attentions)
