"""What a misspelt setting, or one of another tool, is called here."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

NOT_OURS = {
    "per_device_train_batch_size": "--train_batch_size is the global batch, over all processes; memory is set by "
    "--max_tokens_per_device",
    "gradient_accumulation_steps": "--train_batch_size is the global batch and is cut to fit --max_tokens_per_device",
    "per_device_eval_batch_size": "evaluation is cut to fit --eval_max_tokens_per_device",
    "fp16": "--mixed_precision fp16",
    "bf16": "--mixed_precision bf16",
    "lr": "--learning_rate",
    "epochs": "--num_train_epochs",
    "batch_size": "--train_batch_size, the global batch",
    "max_length": "--max_seq_length",
    "hub_token": "--push_to_hub takes the token from the environment variable HF_TOKEN",
    "hub_strategy": "--push_to_hub uploads the finished model, once",
    "do_predict": "a --test_file is predicted in the end; the recipe predict does nothing else",
}
"""Settings of other tools, and what they are here."""


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """The end of a message about an unknown setting: its name here, or the nearest; empty if there is none."""
    if name in NOT_OURS:
        return f": here {NOT_OURS[name]}"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
