"""Suggestions for misspelt settings, and for settings of other tools."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

NOT_OURS = {
    "per_device_train_batch_size": "--train_batch_size, the global batch over all processes, and "
    "--max_tokens_per_device to limit memory",
    "gradient_accumulation_steps": "--train_batch_size, the global batch, which is split to fit "
    "--max_tokens_per_device",
    "per_device_eval_batch_size": "--eval_max_tokens_per_device to limit memory",
    "fp16": "--mixed_precision fp16",
    "bf16": "--mixed_precision bf16",
    "lr": "--learning_rate",
    "epochs": "--num_train_epochs",
    "batch_size": "--train_batch_size, the global batch",
    "max_length": "--max_seq_length",
    "hub_token": "the environment variable HF_TOKEN",
    "hub_strategy": "--push_to_hub, which uploads the finished model once",
    "do_predict": "--test_file, which is predicted after training; the recipe predict only predicts",
}
"""Settings of other tools -> what to use instead."""


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """The end of a message about an unknown setting: what to use instead, or the nearest name; else empty."""
    if name in NOT_OURS:
        return f": use {NOT_OURS[name]}"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
