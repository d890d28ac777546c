"""Parameters without a gradient: those that are never used are frozen, those that another row may use are not."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from job.config import Model
from job.config.tasks import SINGLE_LABEL, Task
from job.model import loading, tokenizers, unused
from tests.support import families


def rows(lengths: tuple[int, ...] = (3, 5, 9), **more: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    ids = [torch.arange(8, 8 + length)[None] for length in lengths]
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), **more} for row in ids]


def load(family: str, folder: Path, **own: Any) -> Any:
    asked = Model(model_name_or_path=str(families.make(family, folder, **own)))
    pretrained = loading.load_config(asked)
    tokenizer = tokenizers.load(asked, pretrained)
    return loading.load(asked, pretrained, Task(SINGLE_LABEL, ("a", "b")), tokenizer.pad_token_id)[0]


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("bert", set()),
        ("esm", {"esm.contact_head.regression.weight", "esm.contact_head.regression.bias"}),
        ("bigbird", {"bert.pooler.weight", "bert.pooler.bias"}),
        ("gpt2", set()),
        ("rembert", set()),
    ],
)
def test_what_a_family_never_uses_is_frozen(family: str, expected: set[str], tmp_path: Path) -> None:
    model = load(family, tmp_path)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    names, varies = unused.find(model, rows())
    assert names == expected and not varies
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    unused.freeze(model, names)
    assert {name for name, parameter in model.named_parameters() if not parameter.requires_grad} == expected


@pytest.mark.parametrize("family", ["xlnet", "roformer", "luke", "mpnet", "longformer", "t5", "albert"])
def test_after_freezing_every_parameter_has_a_gradient_in_every_row(family: str, tmp_path: Path) -> None:
    model = load(family, tmp_path)
    samples = rows()
    for sample in samples:
        sample["input_ids"][0, -1] = model.config.eos_token_id or 8
    names, varies = unused.find(model, samples)
    assert not varies
    unused.freeze(model, names)
    model(**samples[1]).logits.sum().backward()
    assert all((parameter.grad is not None) == parameter.requires_grad for parameter in model.parameters())


def test_dropped_layers_are_chance(tmp_path: Path) -> None:
    model = load("bart", tmp_path, encoder_layerdrop=1e-9)
    samples = rows()
    for sample in samples:
        sample["input_ids"][0, -1] = 2
    assert unused.find(model, samples)[1]


class Gated(torch.nn.Module):
    """Sends a row to one of its experts, by the number of its first token."""

    def __init__(self, experts: torch.nn.Module) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(64, 4)
        self.experts = experts
        self.config = SimpleNamespace(to_dict=dict)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Any:
        expert = list(self.experts.children())[int(input_ids[0, 0]) % 2]
        return SimpleNamespace(logits=expert(self.embedding(input_ids).mean(1)))


def pair() -> dict[str, torch.nn.Module]:
    return {"one": torch.nn.Linear(4, 2), "other": torch.nn.Linear(4, 2)}


@pytest.mark.parametrize("module", ["transformers.models.gated", "own.code"])
def test_experts_are_not_frozen_where_all_rows_seen_went_to_the_same_one(
    module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Gated, "__module__", module)
    model: Any = Gated(torch.nn.ModuleList(pair().values()))
    names, varies = unused.find(model, rows())
    assert names == {"experts.1.weight", "experts.1.bias"}
    assert varies


def test_experts_whose_own_weights_are_frozen_next_to_adapters_are_not_taken_for_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Gated, "__module__", "transformers.models.gated")
    adapted = [torch.nn.Sequential(torch.nn.Linear(4, 4).requires_grad_(False), torch.nn.Linear(4, 2)) for _ in "ab"]
    names, varies = unused.find(cast(Any, Gated(torch.nn.ModuleList(adapted))), rows())
    assert names == {"experts.1.1.weight", "experts.1.1.bias"}
    assert varies


def test_experts_outside_a_list_are_seen_where_rows_differ_and_expected_of_code_that_is_not_the_librarys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gated() -> Any:
        experts = torch.nn.Module()
        for name, expert in pair().items():
            experts.add_module(name, expert)
        return Gated(experts)

    assert unused.find(gated(), rows())[1], "own code"
    monkeypatch.setattr(Gated, "__module__", "transformers.models.gated")
    other = rows()
    other[1]["input_ids"] += 1
    assert unused.find(gated(), other) == (frozenset(), True)
