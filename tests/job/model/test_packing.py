"""A packed forward pass is the padded one without the padding, or it is not used."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset

from job.batching import collate
from job.batching.collate import Collate
from job.config import Config, Model
from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, Task
from job.data.dataset import Split
from job.model import loading, packing, tokenizers
from job.model.outputs import outputs_of
from tests.support.tiny import tiny_model

ARCHITECTURES = ["bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"]
NAMES: dict[Kind, tuple[str, ...]] = {SINGLE_LABEL: ("a", "b", "c"), MULTI_LABEL: ("a", "b"), REGRESSION: ("score",)}
LENGTHS = [64, 30, 30, 30, 12, 12, 3, 1, 1, 64]


def pairs(kind: Kind, architecture: str = "bert") -> Split:
    """Rows of LENGTHS random tokens, the later half of each of the second segment where there are segments."""
    rng = np.random.default_rng(1)
    table = {"input_ids": [[2, *rng.integers(5, 41, n - 1).tolist()] for n in LENGTHS]}
    if architecture != "distilbert":
        table["token_type_ids"] = [[int(i > n // 2) for i in range(n)] for n in LENGTHS]
    labels = {
        SINGLE_LABEL: rng.integers(0, 3, len(LENGTHS)),
        REGRESSION: rng.normal(size=len(LENGTHS)),
        MULTI_LABEL: rng.integers(0, 2, (len(LENGTHS), 2)).astype(np.int8),
    }
    dataset = Dataset.from_dict(table).with_format("numpy")
    return Split(dataset, np.array(LENGTHS, dtype=np.int32), labels[kind], np.arange(len(LENGTHS)))


def network(folder: Path, architecture: str = "bert", kind: Kind = SINGLE_LABEL, dropout: float = 0.0) -> Any:
    """A model with a head for `kind`; weights so large that attention decides what comes out."""
    tiny_model(folder, architecture=architecture, num_labels=None, dropout=dropout)
    asked = Model(model_name_or_path=str(folder))
    torch.manual_seed(3)
    loaded = loading.load(asked, loading.load_config(asked), Task(kind, NAMES[kind]), 0)
    with torch.no_grad():
        for parameter in loaded.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.3)
    return loaded


def tokenizer(folder: Path) -> Any:
    return tokenizers.load(*(lambda asked: (asked, loading.load_config(asked)))(Model(model_name_or_path=str(folder))))


def both(network: Any, folder: Path, split: Split, multiple: int = 1) -> tuple[Collate, Collate]:
    """(packed, padded) collates."""
    return partial(packing.packed, split, network, multiple), partial(collate.padded, split, tokenizer(folder))


def logits_and_gradients(network: Any, batch: Collate, kind: Kind, rows: np.ndarray) -> dict[str, torch.Tensor]:
    network.zero_grad()
    inputs, labels = batch(rows)
    logits = network(**inputs).logits
    assert labels is not None
    outputs_of(kind).training_losses(logits, labels, 0.0).sum().backward()
    return {"logits": logits.detach(), **{n: p.grad for n, p in network.named_parameters() if p.grad is not None}}


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, rtol=1e-5, atol=1e-5 * max(1.0, float(value.abs().max())), msg=name
        )


@pytest.mark.parametrize("multiple", [1, 64])
@pytest.mark.parametrize("kind", [SINGLE_LABEL, REGRESSION, MULTI_LABEL])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_and_gradients_are_those_of_the_padded_form(
    tmp_path: Path, architecture: str, kind: Kind, multiple: int
) -> None:
    trained = network(tmp_path, architecture, kind)
    packing.enable(trained)
    split = pairs(kind, architecture)
    rows = np.arange(len(split))
    batches = both(trained, tmp_path, split, multiple)
    assert batches[0](rows)[0]["input_ids"].shape[1] % multiple == 0
    packed, padded = (logits_and_gradients(trained, batch, kind, rows) for batch in batches)
    assert packed["logits"].shape == (len(split), len(NAMES[kind]))
    assert_equal(packed, padded)
    assert max(float(value.abs().max()) for name, value in padded.items() if "query" in name or "q_lin" in name) > 1e-2


@pytest.mark.parametrize("rows", [[0], [7], [7, 8], [1, 2, 3], [6, 0, 8, 1]], ids=str)
def test_any_micro_batch_gives_what_it_gives_padded(tmp_path: Path, rows: list[int]) -> None:
    trained = network(tmp_path)
    packing.enable(trained)
    found = [
        logits_and_gradients(trained, batch, SINGLE_LABEL, np.array(rows))
        for batch in both(trained, tmp_path, pairs(SINGLE_LABEL))
    ]
    assert_equal(*found)


def test_a_padding_token_inside_a_text_counts_no_position_in_roberta(tmp_path: Path) -> None:
    trained = network(tmp_path, "roberta")
    packing.enable(trained)
    rows = [[2, 7, trained.config.pad_token_id, 9, 3], [2, 8, 3]]
    dataset = Dataset.from_dict({"input_ids": rows}).with_format("numpy")
    split = Split(dataset, np.array([5, 3], dtype=np.int32), np.array([0, 1]), np.arange(2))
    assert_equal(
        *(logits_and_gradients(trained, b, SINGLE_LABEL, np.arange(2)) for b in both(trained, tmp_path, split))
    )


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    trained = network(tmp_path)
    packing.enable(trained)
    batch, _ = both(trained, tmp_path, pairs(SINGLE_LABEL))
    plain = logits_and_gradients(trained, batch, SINGLE_LABEL, np.arange(10))
    trained.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trained.train()
    assert_equal(logits_and_gradients(trained, batch, SINGLE_LABEL, np.arange(10)), plain)


@pytest.mark.parametrize("architecture", ["bert", "distilbert"])
def test_dropout_is_drawn_anew_each_time_and_again_by_the_same_seed(tmp_path: Path, architecture: str) -> None:
    """In attention alone, where packing has its own."""
    trained = network(tmp_path, architecture, dropout=0.3).train()
    for module in trained.modules():
        if isinstance(module, torch.nn.Dropout) and "Attention" not in type(module).__name__:
            module.p = 0.0
    for layer in trained.modules():
        if hasattr(layer, "attention_head_size"):
            layer.dropout.p = 0.3
    packing.enable(trained)
    inputs, _ = both(trained, tmp_path, pairs(SINGLE_LABEL, architecture))[0](np.arange(10))
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(trained(**inputs).logits)
    assert torch.equal(found[0], found[1])
    assert (found[0] - found[2]).abs().max() > 1e-3
    trained.eval()
    assert torch.equal(trained(**inputs).logits, trained(**inputs).logits)


# ---------------------------------------------------------------------------------------------------------------------
# The check at the start


def sequences_see_each_other(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: packing.Layout, dropout: float
) -> torch.Tensor:
    scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1).to(v.dtype), v)


def positions_run_on(ids: np.ndarray, starts: np.ndarray, padding_position: int | None) -> np.ndarray:
    return np.arange(starts[-1]) % 64


def segments_lost(inputs: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in inputs.items() if name != "token_type_ids"}


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("broken", [None, "attention", "positions", "segments"])
def test_the_check_passes_what_is_right_and_catches_what_is_not(
    tmp_path: Path, broken: str | None, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = network(tmp_path)
    packing.enable(trained)
    forward = trained.forward

    def with_autocast(**inputs: Any) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            return forward(**inputs)

    trained.forward = with_autocast  # as accelerate prepares it
    if broken == "attention":
        monkeypatch.setattr(packing, "_attend", sequences_see_each_other)
    if broken == "positions":
        monkeypatch.setattr(packing, "_positions", positions_run_on)
    if broken == "segments":
        right = packing.packed
        monkeypatch.setattr(packing, "packed", lambda *a: (segments_lost(right(*a)[0]), None))
    found = packing.disagreement(trained, tokenizer(tmp_path), pairs(SINGLE_LABEL), 1)
    assert (found is None) == (broken is None), found


def test_a_kernel_that_fails_is_a_reason_to_pad(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: Any) -> torch.Tensor:
        raise RuntimeError("head size 7\nis not supported")

    trained = network(tmp_path)
    packing.enable(trained)
    monkeypatch.setattr(packing, "_attend", fails)
    found = packing.disagreement(trained, tokenizer(tmp_path), pairs(SINGLE_LABEL), 1)
    assert found == "the packed forward pass fails (head size 7 is not supported)"


def test_the_check_draws_no_randomness_and_leaves_the_mode(tmp_path: Path) -> None:
    trained = network(tmp_path, dropout=0.5).train()
    packing.enable(trained)
    before = torch.get_rng_state()
    packing.disagreement(trained, tokenizer(tmp_path), pairs(SINGLE_LABEL), 1)
    assert torch.equal(torch.get_rng_state(), before)
    assert trained.training


def test_logits_that_are_no_numbers_do_not_agree(tmp_path: Path) -> None:
    trained = network(tmp_path)
    packing.enable(trained)
    with torch.no_grad():
        trained.classifier.bias[0] = float("nan")
    assert packing.disagreement(trained, tokenizer(tmp_path), pairs(SINGLE_LABEL), 1) is not None


# ---------------------------------------------------------------------------------------------------------------------
# What is packed and what is not


def chosen(trained: Any, folder: Path, split: Split | None = None, **changes: Any) -> packing.Form:
    config = Config(model=replace(Config().model, **changes))
    prepared = Accelerator(cpu=True).prepare_model(trained)
    return packing.choose(config, prepared, tokenizer(folder), split or pairs(SINGLE_LABEL), Accelerator(cpu=True))


def test_a_known_model_is_packed(tmp_path: Path) -> None:
    form = chosen(network(tmp_path), tmp_path)
    assert form.packed and str(form) == "packed"
    inputs = form.collate(pairs(SINGLE_LABEL))(np.arange(2))[0]
    assert "packed" in inputs and inputs["input_ids"].shape == (1, sum(LENGTHS[:2]))


def test_in_bf16_on_a_cpu_it_is_filled_up_to_a_number_of_tokens_that_comes_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Accelerator, "mixed_precision", "bf16")
    form = chosen(network(tmp_path), tmp_path)
    inputs = form.collate(pairs(SINGLE_LABEL))(np.arange(4, 7))[0]
    assert form.multiple == 32
    assert inputs["input_ids"].shape == inputs["position_ids"].shape == (1, 32)
    assert inputs["packed"].lengths == tuple(LENGTHS[4:7])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"packing": False}, "--no_packing"),
        ({"attn_implementation": "eager"}, "--attn_implementation eager"),
        ({"torch_compile": True}, "--torch_compile would compile anew for the lengths of every micro-batch"),
    ],
)
def test_what_was_asked_for_comes_first(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    form = chosen(network(tmp_path), tmp_path, **changes)
    assert not form.packed and str(form) == f"padded: {reason}"
    assert "attention_mask" in form.collate(pairs(SINGLE_LABEL))(np.arange(2))[0]


def test_fixed_widths_are_padded(tmp_path: Path) -> None:
    form = chosen(network(tmp_path), tmp_path, replace(pairs(SINGLE_LABEL), width=64))
    assert form.padded_because == "--pad_to_max_length"


def test_an_unknown_architecture_is_padded(tmp_path: Path) -> None:
    from transformers import AlbertConfig, AlbertForSequenceClassification

    tiny_model(tmp_path, num_labels=None)
    config = AlbertConfig(vocab_size=90, embedding_size=8, hidden_size=16, num_attention_heads=2, intermediate_size=32)
    form = chosen(AlbertForSequenceClassification(config), tmp_path)
    assert form.padded_because == "no packed form of AlbertForSequenceClassification is known here"


def test_a_subclass_of_a_known_model_is_not_taken_for_it(tmp_path: Path) -> None:
    from transformers import BertForSequenceClassification

    class BertForSequenceClassification(BertForSequenceClassification):  # type: ignore[no-redef]
        """Of the same name, from a repository's own code."""

    trained = network(tmp_path)
    trained.__class__ = BertForSequenceClassification
    assert packing.unsupported(trained) is not None


def test_a_decoder_is_padded(tmp_path: Path) -> None:
    trained = network(tmp_path)
    trained.config.is_decoder = True
    assert packing.unsupported(trained) == "the model is configured as a decoder"


def test_a_model_that_does_not_agree_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = network(tmp_path)
    _, padded = both(trained, tmp_path, pairs(SINGLE_LABEL))
    before = trained(**padded(np.arange(10))[0]).logits
    monkeypatch.setattr(packing, "_positions", positions_run_on)
    form = chosen(trained, tmp_path)
    assert str(form).startswith("padded: computed both ways, rows of the data differ by ")
    assert trained.config._attn_implementation == "sdpa"
    assert torch.equal(trained(**padded(np.arange(10))[0]).logits, before)
    assert not trained.bert.encoder._forward_hooks and "forward" not in vars(trained.bert.encoder.layer[-1])


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
        loaded = loading.load(asked, loading.load_config(asked), Task(SINGLE_LABEL, NAMES[SINGLE_LABEL]), 0)
        loaded.save_pretrained(folder)
        saved = json.loads((folder / "config.json").read_text())
        assert saved[name] == 0.0
        assert 0.1 in {module.p for module in loaded.modules() if isinstance(module, torch.nn.Dropout)}
        attentions = [module for module in loaded.modules() if hasattr(module, "attention_head_size")]
        assert attentions and all(module.dropout.p == 0.0 for module in attentions)
