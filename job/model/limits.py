"""How many tokens of an example a model can read."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from job.errors import Refused
from job.model import loading

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

LONGEST = 512
NO_LIMIT = 1_000_000
"""What a tokenizer's model_max_length of this size and more means."""


def max_length(
    asked: int | None, pretrained: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, trained: bool = False
) -> int:
    """Tokens kept of an example.

    As asked; else the model's limit, 512 at most. A model that is used as it is (`trained`) reads as many as its
    tokenizer says, which is the length it was trained with.

    Raises:
        Refused: the model has fewer positions than asked for, or none.
    """
    limit = positions(pretrained)
    if limit is not None and limit < 1:
        raise Refused(f"the model has no positions behind its padding token: config.json has pad_token_id "
                      f"{pretrained.pad_token_id} and {pretrained.max_position_embeddings} positions")  # fmt: skip
    if asked is not None:
        if limit is not None and asked > limit:
            raise Refused(f"--max_seq_length {asked} is more than the {limit} positions of the model")
        return asked
    of_tokenizer = int(min(tokenizer.model_max_length, NO_LIMIT))
    longest = of_tokenizer if limit is None else min(limit, of_tokenizer)
    return longest if trained and of_tokenizer < NO_LIMIT else min(longest, LONGEST)


def positions(pretrained: PreTrainedConfig) -> int | None:
    """Tokens that the model has positions for; None for one without a limit, which may say so by -1."""
    number = getattr(pretrained.get_text_config(), "max_position_embeddings", None)
    if not isinstance(number, int) or number <= 0:
        return None
    return number - offset(pretrained)


def offset(pretrained: PreTrainedConfig) -> int:
    """Positions before that of a text's first token: RoBERTa and its relatives count from behind their padding token.

    Their position embeddings have a row for padding, and that is how they are recognised: in the model itself, built
    without weights, as a list of families would be incomplete.
    """
    import torch

    network = loading.network_class(pretrained)
    if network is None:
        return 0
    with torch.device("meta"):
        modules = dict(network(copy.deepcopy(pretrained)).named_modules())
    rows = [getattr(m, "padding_idx", None) for name, m in modules.items() if name.endswith("position_embeddings")]
    return next((row + 1 for row in rows if row is not None), 0)
