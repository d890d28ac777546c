"""The maximum sequence length of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.errors import Refused
from job.model import loading

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

LONGEST = 512
NO_LIMIT = 1_000_000
"""A tokenizer's model_max_length from this value on means that there is no limit."""


def max_length(
    requested: int | None, pretrained: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, as_is: bool = False
) -> int:
    """The maximum length of an example in tokens: `requested`, or by default the model's limit, at most 512.

    For a model that is used `as_is`, without training, the default is the limit of its tokenizer, which is the length
    it was trained with.

    Raises:
        Refused: the model has fewer positions than requested, or none; or its folder gives no number of them.
    """
    limit = positions(pretrained)
    if limit is not None and limit < 1:
        raise Refused(f"the model has no positions behind its padding token: config.json has pad_token_id "
                      f"{pretrained.pad_token_id} and {pretrained.max_position_embeddings} positions")  # fmt: skip
    if requested is not None:
        if limit is not None and requested > limit:
            raise Refused(f"--max_seq_length {requested} is more than the {limit} positions of the model")
        return requested
    if not isinstance(tokenizer.model_max_length, int | float):
        raise Refused(f"model_max_length in the tokenizer_config.json of {tokenizer.name_or_path} is "
                      f"{tokenizer.model_max_length!r}: it must be a number")  # fmt: skip
    tokenizer_limit = int(min(tokenizer.model_max_length, NO_LIMIT))
    longest = tokenizer_limit if limit is None else min(limit, tokenizer_limit)
    return longest if as_is and tokenizer_limit < NO_LIMIT else min(longest, LONGEST)


def positions(pretrained: PreTrainedConfig) -> int | None:
    """The number of tokens that the model has positions for; None without a limit (some models write -1)."""
    number = getattr(pretrained.get_text_config(), "max_position_embeddings", None)
    if not isinstance(number, int) or number <= 0:
        return None
    return number - offset(pretrained)


def offset(pretrained: PreTrainedConfig) -> int:
    """The position of a text's first token: RoBERTa-like models start after the index of their padding token.

    These models have a padding row in their position embeddings. A list of model families would be incomplete, so the
    model is built without weights to look for that row.
    """
    model = loading.outline(pretrained)
    modules = () if model is None else model.named_modules()
    rows = [getattr(module, "padding_idx", None) for name, module in modules if name.endswith("position_embeddings")]
    return next((row + 1 for row in rows if row is not None), 0)
