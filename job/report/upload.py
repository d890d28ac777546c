"""--push_to_hub: the model folder as a repository on the hub, in one commit.

The token is taken from HF_TOKEN and given to the library, nothing else: it is in no flag, file or message. Whether it
may write is known only when something is written, so the repository is made before training, as the Trainer of
Transformers does. An upload that fails leaves the finished run as it is, and large files that the hub has received are
not sent again.
"""

from __future__ import annotations

import os
import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from job.config import Config
from job.errors import Refused, Stopped, UploadFailed
from job.report.card import MODEL_HERE
from job.run import manifest, opening
from job.run.folder import RunFolder
from job.run.manifest import MAIN_BRANCH
from job.run.status import Status
from job.runtime import console, signals
from job.runtime.console import log
from job.runtime.environment import HUB_TOKEN

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi

OTHER_WEIGHTS = (
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".pkl",
    ".pickle",
    ".joblib",
    ".npz",
    ".npy",
    ".h5",
    ".msgpack",
    ".onnx",
)
"""Files that are never uploaded: weights are safetensors."""
WEIGHTS = ("model*.safetensors", "model.safetensors.index.json")
"""What an upload replaces as a whole: a shard of an older model would be loaded in place of the new weights."""


@dataclass(frozen=True)
class Target:
    """The repository and the branch to upload to."""

    repository: str
    revision: str


def prepare(config: Config, folder: RunFolder) -> Target:
    """Create the repository and the branch if they do not exist.

    Raises:
        Refused: the hub is not reachable, does not accept the token, or denies writing with it; or the repository is
            public and a private one is asked for, or the branch is a tag.
    """
    name, revision = opening.repository(config, folder), config.hub.hub_revision or MAIN_BRANCH
    api = _api()
    try:
        repository = name if "/" in name else f"{api.whoami()['name']}/{name}"
        api.create_repo(repository, private=config.hub.hub_private_repo, exist_ok=True)
        api.auth_check(repository, write=True)
        if revision != MAIN_BRANCH:
            api.create_branch(repository, branch=revision, exist_ok=True)  # exists also if it is a tag
            branches = [branch.name for branch in api.list_repo_refs(repository).branches]
        private = bool(api.model_info(repository).private)
    except Exception as error:  # HTTP errors of several libraries, answers of any kind
        raise Refused(f"--push_to_hub: {_why_not(error, name, api.endpoint)}") from error
    if revision != MAIN_BRANCH and revision not in branches:
        raise Refused(f"--hub_revision {revision} is a tag of {repository}: name a branch, or delete the tag")
    if config.hub.hub_private_repo and not private:
        raise Refused(f"--hub_private_repo: {repository} exists and is public: make it private in its settings, or "
                      "choose another --hub_model_id")  # fmt: skip
    at, visibility = f" at {revision}" if revision != MAIN_BRANCH else "", "private" if private else "public"
    log.info(f"hub      {repository}{at}, {visibility}")
    return Target(repository, revision)


def prepare_resumed(config: Config, folder: RunFolder) -> Target | None:
    """As `prepare`, for a run that is resumed: a hub that does not answer now must not keep it from training on."""
    try:
        return prepare(config, folder)
    except Refused as error:
        log.warning(f"{error}; training is resumed, and the hub is asked again at the end")
        return None


def push(config: Config, folder: RunFolder, target: Target | None) -> None:
    """Upload the model folder and write into the manifest where it is.

    `target` is None where the hub did not answer before training: it is prepared now.

    Raises:
        UploadFailed: nothing was committed; the line says how to do it again.
        Stopped: by a signal meanwhile.
    """
    api = _api()
    try:
        target = target or prepare(config, folder)
    except Refused as error:
        raise UploadFailed(
            f"{folder.model} is complete, but was not uploaded ({error}); {_again(config, folder)}"
        ) from error
    try:
        with console.notice(f"uploading the model to {target.repository}"):
            commit = signals.interruptible(lambda: _commit(api, folder, target))()
    except Stopped as stop:
        stop.progress = f"during the upload; the run is finished; {_again(config, folder)}"
        raise
    except Exception as error:
        reason = _reason(error)
        raise UploadFailed(f"{folder.model} is complete, but was not uploaded to {target.repository} ({reason}); "
                           f"{_again(config, folder)}") from error  # fmt: skip
    requested = opening.repository(config, folder)
    record = {"repository": target.repository, "requested": requested, "revision": target.revision, "commit": commit}
    manifest.amend(folder, **{manifest.UPLOAD: record})
    log.info(f"uploaded {api.endpoint}/{target.repository}/tree/{commit}")


def push_finished(config: Config, folder: RunFolder) -> None:
    """Upload the model of a run that has finished before.

    Raises:
        Refused: as `prepare`; the status stays as it was.
        UploadFailed, Stopped: as `push`.
    """
    target = prepare(config, folder)
    with Status.of_finished(folder).running():
        push(config, folder, target)


def _api() -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(token=os.environ[HUB_TOKEN].strip())


def _commit(api: HfApi, folder: RunFolder, target: Target) -> str:
    """One commit with all files: the hub takes it whole or not at all. Returns its hash."""
    there = api.list_repo_files(target.repository, revision=target.revision)
    added, deleted = additions(folder.model, target.repository), deletions(folder.model, there)
    operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [*added, *deleted]
    title = "Upload the fine-tuned model"
    return api.create_commit(target.repository, operations, commit_message=title, revision=target.revision).oid


def additions(model: Path, repository: str) -> list[CommitOperationAdd]:
    """The files of the model folder, by name; the card says under which name the model is loaded."""
    from huggingface_hub import CommitOperationAdd

    found = []
    for path in sorted(path for path in model.rglob("*") if path.is_file()):
        name = path.relative_to(model)
        if any(part.startswith(".") for part in name.parts):
            continue
        if path.suffix.lower() in OTHER_WEIGHTS:
            log.warning(f"{path} is not uploaded: weights are uploaded as safetensors only")
        elif name.as_posix() == "README.md":
            text = path.read_text(encoding="utf-8").replace(MODEL_HERE, repository)
            found.append(CommitOperationAdd(name.as_posix(), text.encode()))
        else:
            found.append(CommitOperationAdd(name.as_posix(), str(path)))
    return found


def deletions(model: Path, there: list[str]) -> list[CommitOperationDelete]:
    """The weights of an older model in the repository that the new ones do not replace."""
    from huggingface_hub import CommitOperationDelete

    old = [name for name in there if any(Path(name).match(pattern) for pattern in WEIGHTS) and "/" not in name]
    return [CommitOperationDelete(name) for name in old if not (model / name).is_file()]


def _again(config: Config, folder: RunFolder) -> str:
    without = " and without --overwrite_output_dir" * config.run.overwrite_output_dir
    return f"to upload it, repeat the command with --output_dir {shlex.quote(str(folder.path))}{without}"


def _why_not(error: Exception, name: str, endpoint: str) -> str:
    """What is wrong with the token or the repository, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    make = f"make one with write access at {endpoint}/settings/tokens"
    if status == 401:
        return f"the hub does not accept the token in {HUB_TOKEN}: {make}"
    if status == 403:
        return f"the token in {HUB_TOKEN} may not write to {name}: {make}, or choose another --hub_model_id"
    return f"{name} on {endpoint} cannot be written to: {_reason(error)}"


def _reason(error: BaseException) -> str:
    """The hub's answer, else the error message, as one line without the token."""
    said = next((e for e in (error, error.__cause__) if getattr(e, "response", None) is not None), error)
    answer = getattr(said, "response", None)
    message = str(said) if answer is None else getattr(said, "server_message", None) or answer.reason_phrase
    text = message if answer is None else f"the hub answered {answer.status_code}: {message}"
    text = " ".join(text.split()).replace(os.environ[HUB_TOKEN].strip(), "***")
    return textwrap.shorten(text, 300, placeholder=" ...") or type(error).__name__
