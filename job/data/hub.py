"""Asks the hub about repositories, once for each, and puts its errors into words.

If the hub denies access or does not answer, the libraries use a cached copy with at most a warning: an old state of a
branch, or the revision prepared last. Resolving the commit first makes that an error. HF_HUB_OFFLINE=1 requests the
cached copy.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
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
    with network_errors():
        return ask(name, revision=revision, timeout=SECONDS)


@contextlib.contextmanager
def network_errors() -> Iterator[None]:
    """Let errors of the connection be OSErrors, as those that the hub answers with are."""
    from huggingface_hub import constants

    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ConnectionError(f"{constants.ENDPOINT} does not answer: {error}") from error


def in_words(error: BaseException, what: str, name: str, revision: str | None) -> str:
    """Why the hub does not give `what` (model, dataset, ...), and the remedy."""
    from huggingface_hub import constants, errors, get_token

    address = f"{constants.ENDPOINT}/{'datasets/' if what == 'dataset' else ''}{name}"
    if isinstance(error, errors.GatedRepoError):
        remedy = "set HF_TOKEN to a token of your account" if get_token() is None else "try again"
        return f"the {what} {name} is gated: accept its terms at {address}, then {remedy}"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"the {what} {name} has no branch, tag or commit {revision}: {address}/tree/main lists them"
    if isinstance(error, errors.RepositoryNotFoundError):
        token = "set HF_TOKEN" if get_token() is None else "HF_TOKEN must belong to an account that has access"
        return f"no {what} {name} at {constants.ENDPOINT}: correct the name; if it is private, {token}"
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return f"{constants.ENDPOINT} does not accept HF_TOKEN: set it to a valid token, or unset it"
    if isinstance(error, errors.HFValidationError):
        return f"{name} is neither a folder here nor a name on the hub"
    return (f"the hub cannot be reached ({' '.join(str(error).split())[:160]}): start this where there is a network, "
            "or set HTTPS_PROXY")  # fmt: skip
