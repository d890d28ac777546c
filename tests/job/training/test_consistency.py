"""A checkpoint is resumed only in the precision in which it was saved, and by the model that it was saved from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import PreTrainedConfig

from job.errors import Refused
from job.training import consistency, state


def checkpoint(folder: Path, **values: Any) -> Path:
    (folder / "state.json").write_text(json.dumps(values))
    return folder


def test_another_precision_than_that_of_the_checkpoint_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"was saved in mixed precision bf16, and this start has no: start it with "):
        consistency.refuse_other_precision(checkpoint(tmp_path, mixed_precision="bf16"), "no")


def test_the_same_precision_is_accepted(tmp_path: Path) -> None:
    consistency.refuse_other_precision(checkpoint(tmp_path, mixed_precision="bf16"), "bf16")
    consistency.refuse_other_precision(None, "bf16")


def test_a_checkpoint_of_a_version_that_did_not_record_the_precision_is_accepted(tmp_path: Path) -> None:
    consistency.refuse_other_precision(checkpoint(tmp_path), "bf16")


BEFORE: dict[str, Any] = {
    "hidden_dropout_prob": 0.1,
    "text_config": {"rope_theta": 1.0, "removed": 1},
    "transformers_version": "5.0",
    "id2label": {"0": "a"},
}


@pytest.mark.parametrize(
    ("now", "changed"),
    [
        ({"hidden_dropout_prob": 0.2}, "hidden_dropout_prob"),
        ({"text_config": {"rope_theta": 2.0}}, "rope_theta"),
        ({"hidden_dropout_prob": 0.2, "id2label": {"0": "b"}}, "0, hidden_dropout_prob"),
    ],
)
def test_a_checkpoint_of_a_model_with_other_settings_is_rejected_by_their_names(
    now: dict[str, Any], changed: str, tmp_path: Path
) -> None:
    checkpoint(tmp_path, model_settings=BEFORE)
    with pytest.raises(
        Refused, match=rf"the model's config\.json changed since .* was saved \({changed}\): restore it"
    ):
        consistency.refuse_other_settings(tmp_path, PreTrainedConfig(**{**BEFORE, **now}))


def test_settings_that_another_version_of_the_library_added_or_removed_are_no_difference(tmp_path: Path) -> None:
    now = PreTrainedConfig(**{**BEFORE, "text_config": {"rope_theta": 1.0, "added": 1}, "new": 2})
    consistency.refuse_other_settings(checkpoint(tmp_path, model_settings=BEFORE), now)
    consistency.refuse_other_settings(checkpoint(tmp_path), now)
    consistency.refuse_other_settings(None, now)


def model_of(*sizes: int) -> torch.nn.Module:
    return torch.nn.Sequential(*(torch.nn.Linear(size, 2) for size in sizes))


@pytest.mark.parametrize(
    ("sizes", "trained", "said"),
    [
        ((3,), slice(None), r"1\.bias is not in the model"),
        ((3, 4, 5), slice(None), r"2\.bias is missing"),
        ((3, 5), slice(None), r"1\.weight is of another size"),
        ((3, 4), slice(1, None), "other weights are trained"),
    ],
)
def test_an_intact_checkpoint_of_another_model_is_rejected(
    sizes: tuple[int, ...], trained: slice, said: str, tmp_path: Path
) -> None:
    saved = model_of(3, 4)
    save_file(state.weights(saved), tmp_path / "model.safetensors")
    checkpoint(tmp_path, groups=[{"params": [0, 1, 2, 3]}])
    consistency.refuse_other_model(tmp_path, model_of(3, 4), torch.optim.SGD(saved.parameters()))
    model = model_of(*sizes)
    optimizer = torch.optim.SGD(list(model.parameters())[trained])
    with pytest.raises(Refused, match=rf"does not fit the model \({said}\): start with the model and the versions"):
        consistency.refuse_other_model(tmp_path, model, optimizer)
