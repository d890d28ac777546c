"""Which commit a name and revision on the hub mean, asked once.

The libraries take a cached copy, with a warning at most, when the hub refuses or does not answer: an old state of a
branch, or whatever was prepared last. Asking for the commit first makes that an error. Who wants the cached copy says
so with HF_HUB_OFFLINE=1.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

SECONDS = 30


@cache
def commit(name: str, revision: str | None, kind: Literal["model", "dataset"]) -> str | None:
    """The commit hash of `revision` (None: the main branch); offline, `revision` itself.

    Raises:
        huggingface_hub.errors.HfHubHTTPError, OSError: no such repository or revision, no access, or no answer.
    """
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return revision
    return HfApi().repo_info(name, revision=revision, repo_type=kind, timeout=SECONDS).sha
