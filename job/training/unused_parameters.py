"""Handles parameters that no row of the training data uses (job/model/unused.py), before DDP is set up."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from accelerate import Accelerator

from job import distributed
from job.batching import collate, form_check
from job.data.dataset import Split
from job.model import batch_statistics, unused

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

PROBED_ROWS = 4
"""Rows of the shorter half that are computed, in addition to the longest row."""


def settle(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, split: Split, accelerator: Accelerator) -> None:
    """Freeze what no row uses, for any number of processes, or let DDP search for it in every step.

    Refused, on every process, if the model cannot be trained on a row alone, or not like that.
    """
    model.to(accelerator.device)
    by_length = np.argsort(split.lengths, kind="stable")
    shorter = np.linspace(0, len(by_length) // 2, PROBED_ROWS).astype(np.int64)
    chosen = by_length[np.unique([*shorter, len(by_length) - 1])]
    padding = collate.Padding(tokenizer.pad_token_id)

    def find() -> tuple[frozenset[str], bool]:
        rows = [collate.moved(collate.padded(split, padding, one), accelerator.device)[0] for one in chosen[:, None]]
        with accelerator.autocast(), form_check.refusing_failures(model, "cannot be trained on a row of the data"):
            found = unused.find(model, rows)
            batch_statistics.refuse(model, rows[-1])
            return found

    names, varies = distributed.broadcast_from_main(accelerator, find)
    if not varies:
        unused.freeze(model, names)
    elif accelerator.num_processes > 1:
        accelerator.ddp_handler = replace(distributed.DDP, find_unused_parameters=True)
