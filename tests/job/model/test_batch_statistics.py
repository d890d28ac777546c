"""A model that keeps statistics of its batches is not trained; buffers that change nothing are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from job.config import Model
from job.config.tasks import SINGLE_LABEL, Task
from job.errors import Refused
from job.model import batch_statistics, loading, tokenizers
from tests.support import families

ROW = {"input_ids": torch.arange(5, 17)[None], "attention_mask": torch.ones(1, 12, dtype=torch.int64)}


def load(family: str, folder: Path) -> Any:
    settings = Model(model_name_or_path=str(families.make(family, folder)))
    pretrained = loading.load_config(settings)
    pad = tokenizers.load(settings, pretrained).pad_token_id
    return loading.load(settings, pretrained, Task(SINGLE_LABEL, ("a", "b")), pad)[0]


class Normalized(torch.nn.Module):
    """Batch normalization of the hidden states of a model, token by token."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.norm = model.base_model, torch.nn.BatchNorm1d(16)

    def forward(self, **row: torch.Tensor) -> Any:
        output = self.model(**row)
        output["logits"] = self.norm(output.last_hidden_state.mT).mean(2)
        return output


def test_batch_normalization_is_rejected_and_left_as_it_was(tmp_path: Path) -> None:
    model = Normalized(load("bert", tmp_path))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(Refused, match=r"Normalized keeps statistics of the rows of a batch \(norm\.running_mean\)"):
        batch_statistics.refuse(cast(Any, model), ROW)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("family", ["ibert", "llama"])
def test_buffers_that_change_nothing_are_no_reason(family: str, tmp_path: Path) -> None:
    batch_statistics.refuse(load(family, tmp_path), ROW)
