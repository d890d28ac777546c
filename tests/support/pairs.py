"""Pairs of texts made from numbers, of very different lengths, and a model that tells them apart by attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from job.config import Model
from job.config.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL, Kind, Task
from job.data.dataset import Split
from job.model import loading
from tests.support.tiny import tiny_model

NAMES: dict[Kind, tuple[str, ...]] = {SINGLE_LABEL: ("a", "b", "c"), MULTI_LABEL: ("a", "b"), REGRESSION: ("score",)}
PAD = 0
LENGTHS = [64, 30, 30, 30, 12, 12, 3, 1, 1, 64]


def pairs(kind: Kind, architecture: str = "bert") -> Split:
    """Rows of LENGTHS random tokens, the later half of each of the second segment where there are segments."""
    rng = np.random.default_rng(1)
    table = {"input_ids": [[2, *rng.integers(5, 41, n - 1).tolist()] for n in LENGTHS]}
    if architecture != "distilbert":
        table["token_type_ids"] = [[int(i > n // 2) for i in range(n)] for n in LENGTHS]
    labels: dict[Kind, np.ndarray] = {
        SINGLE_LABEL: rng.integers(0, 3, len(LENGTHS)),
        REGRESSION: rng.normal(size=len(LENGTHS)),
        MULTI_LABEL: rng.integers(0, 2, (len(LENGTHS), 2)).astype(np.int8),
    }
    dataset = Dataset.from_dict(table).with_format("numpy")
    return Split(dataset, np.array(LENGTHS, dtype=np.int32), labels[kind], np.arange(len(LENGTHS)))


def network(folder: Path, architecture: str = "bert", kind: Kind = SINGLE_LABEL, dropout: float = 0.0) -> Any:
    """A model with a head for `kind`; weights so large that attention determines the output."""
    tiny_model(folder, architecture=architecture, num_labels=None, dropout=dropout)
    settings = Model(model_name_or_path=str(folder))
    torch.manual_seed(3)
    loaded = loading.load(settings, loading.load_config(settings), Task(kind, NAMES[kind]), 0)[0]
    enlarge_weights(loaded)
    return loaded


def enlarge_weights(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(0.0, 0.3)
