"""Identifies how a tokenizer turns text into tokens: the key of tokens in the cache.

What is missing here lets a run train on the tokens of another tokenizer; what is superfluous only tokenizes again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.runtime import files

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHANGES_IN_USE = ("cache", "deprecation_warnings")
"""Beginnings of the names of attributes that tokenizers in Python change while they are used."""


def of(tokenizer: PreTrainedTokenizerBase) -> str:
    """64 hex digits, the same in every process and after the tokenizer was used."""
    import tokenizers
    import transformers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    return files.digest(
        {
            "class": type(tokenizer).__qualname__,
            "libraries": [transformers.__version__, tokenizers.__version__],
            "truncation_side": tokenizer.truncation_side,
            "split_special_tokens": tokenizer.split_special_tokens,  # not part of the backend's description
            "state": _of_python(tokenizer) if backend is None else _of_backend(backend),
        }
    )


def _of_backend(backend: Any) -> dict[str, Any]:
    description: dict[str, Any] = json.loads(backend.to_str())
    description.update(truncation=None, padding=None)  # state of the last call, not a property of the tokenizer
    return description


def _of_python(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """Options, vocabulary and files of a tokenizer written in Python: each class names its attributes as it likes."""
    state = {name: value for name, value in vars(tokenizer).items() if not name.startswith(CHANGES_IN_USE)}
    read = {
        name: files.sha256(Path(value))
        for name, value in state.items()
        if isinstance(value, str | Path) and os.path.isfile(value)  # noqa: PTH113 (Path's raises for a name too long)
    }
    return [sorted(tokenizer.get_vocab().items()), _plain(state | read)]


def _plain(value: Any) -> Any:
    """`value` as JSON that is the same in every process; of an object without a value only its type."""
    from transformers import AddedToken

    if isinstance(value, Mapping):
        return sorted(([repr(_plain(key)), _plain(part)] for key, part in value.items()), key=lambda pair: pair[0])
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted(repr(_plain(part)) for part in value)
    if isinstance(value, str | bool | int | float | None):
        return value
    return repr(value) if isinstance(value, AddedToken) else type(value).__qualname__
