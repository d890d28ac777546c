"""Resolves a name and revision on the hub to a commit, once.

If the hub denies access or does not answer, the libraries use a cached copy with at most a warning: an old state of a
branch, or the revision prepared last. Resolving the commit first makes that an error. HF_HUB_OFFLINE=1 requests the
cached copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from huggingface_hub import DatasetInfo, ModelInfo

SECONDS = 30
Kind = Literal["model", "dataset"]


def commit(name: str, revision: str | None, kind: Kind) -> str | None:
    """The commit hash of `revision` (None: the main branch); offline, `revision` itself.

    Raises:
        huggingface_hub.errors.HfHubHTTPError, OSError: no such repository or revision, no access, or no answer.
    """
    found = _described(name, revision, kind)
    return revision if found is None else found.sha


def card(name: str, revision: str | None, kind: Kind) -> Mapping[str, Any]:
    """The metadata of a repository's card; {} offline, or where it has none.

    Raises: as `commit`.
    """
    found = _described(name, revision, kind)
    return {} if found is None or found.card_data is None else found.card_data.to_dict()


@cache
def _described(name: str, revision: str | None, kind: Kind) -> ModelInfo | DatasetInfo | None:
    """What the hub says of a repository; None offline."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return None
    api = HfApi()
    ask = api.model_info if kind == "model" else api.dataset_info
    return ask(name, revision=revision, timeout=SECONDS)
