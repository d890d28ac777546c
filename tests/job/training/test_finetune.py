"""What is rejected before the first step."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from accelerate import Accelerator

from job.config import Config, Training
from job.config.tasks import SINGLE_LABEL, Task
from job.errors import Refused
from job.training import finetune
from tests.support.examples import split_of


def test_a_run_with_a_global_batch_without_weight_is_rejected() -> None:
    training = Training(class_weights={"red": 0.0, "green": 0.0, "blue": 1.0}, train_batch_size=2)
    context: Any = SimpleNamespace(config=Config(training=training), accelerator=Accelerator(cpu=True), folder=None)
    task = Task(SINGLE_LABEL, ("red", "green", "blue"))
    data: Any = SimpleNamespace(train=split_of(40, classes=3, seed=0), task=task)
    with pytest.raises(Refused, match="have weight 0"):
        finetune._objective(context, data, 20)
