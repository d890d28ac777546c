"""The rows computed before training reveal a model that cannot be trained on the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from job.config import Model
from job.config.tasks import SINGLE_LABEL, Task
from job.errors import Refused
from job.model import loading, tokenizers
from job.training import unused_parameters
from tests.support import families
from tests.support.pairs import pairs


@pytest.mark.parametrize(
    ("family", "changes", "message"),
    [
        ("reformer", {}, "If training, sequence length 12 has to be a multiple of "),
        ("yoso", {"use_expectation": False}, "'NoneType' object has no attribute 'fast_hash'"),
    ],
)
def test_a_model_that_fails_in_training_is_rejected_in_one_line(
    family: str, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    settings = Model(model_name_or_path=str(families.make(family, tmp_path, **changes)))
    pretrained = loading.load_config(settings)
    tokenizer = tokenizers.load(settings, pretrained)
    model = loading.load(settings, pretrained, Task(SINGLE_LABEL, ("a", "b", "c")), tokenizer.pad_token_id)[0]
    with pytest.raises(Refused) as caught:
        unused_parameters.settle(model, tokenizer, pairs(SINGLE_LABEL, "distilbert"), Accelerator(cpu=True))
    name = type(model).__name__
    assert str(caught.value).startswith(f"{name} cannot be trained on a row of the data ({message}")
    assert str(caught.value).endswith("): choose another model") and len(str(caught.value).splitlines()) == 1
