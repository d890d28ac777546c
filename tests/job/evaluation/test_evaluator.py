"""An evaluation uses the settings of the run."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.metrics import f1_score

from job.batching.collate import PackedFormat, Padding
from job.batching.forms import Form
from job.batching.planner import PADDED
from job.config import Config, Evaluation
from job.config.tasks import SINGLE_LABEL, Task
from job.evaluation.evaluator import Evaluator
from tests.support.examples import split_of


class EveryOther(torch.nn.Module):
    """Predicts class 1 for the rows with an odd number of tokens."""

    config = SimpleNamespace(num_labels=2)

    def forward(self, attention_mask: torch.Tensor, **inputs: Any) -> Any:
        odd = attention_mask.sum(1) % 2
        return SimpleNamespace(logits=torch.stack([1 - odd, odd], 1).float())


@pytest.mark.parametrize(("named", "positive"), [("ham", 0), ("spam", 1), (None, 1)])
def test_f1_is_that_of_the_positive_label(
    named: str | None, positive: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import evaluate

    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", tmp_path)
    split = split_of(31, classes=2, seed=0)
    assert split.labels is not None
    config = Config(evaluation=Evaluation(metrics=("f1",), positive_label=named))
    context: Any = SimpleNamespace(accelerator=Accelerator(cpu=True), config=config)
    form = Form(PADDED, PackedFormat(0, None, 1, longest=24, with_lengths=True), Padding(0))
    evaluator = Evaluator(context, EveryOther(), form, Task(SINGLE_LABEL, ("ham", "spam")), lambda: None)
    predictions, scores = evaluator(split)
    expected = {label: f1_score(split.labels, split.lengths % 2, pos_label=label) for label in (0, 1)}
    assert predictions.predicted.tolist() == (split.lengths % 2).tolist()
    assert not np.isclose(expected[0], expected[1])
    assert scores["f1"] == pytest.approx(expected[positive])
