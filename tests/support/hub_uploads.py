"""The part of the stand-in hub that is written to: accounts, new repositories and branches, large files, commits.

As the real hub, it takes a file by its SHA-256 into a store (LFS) before a commit names it; what is in the store is not
sent again. Cards are checked when they are committed, by those rules of the real hub that concern ours.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

from tests.support.hub_protocol import (
    DEFAULT_BRANCH,
    Query,
    Refused,
    Reply,
    Repository,
    User,
    as_json,
    blob_hash,
    snapshot_of,
)

if TYPE_CHECKING:
    from tests.support.hub import Hub

LARGE = (".safetensors", ".bin", ".pt", ".pth", ".onnx", ".h5")
"""Stored in LFS regardless of size, as the .gitattributes of a new repository says."""
LARGE_BYTES = 10_000_000
FIRST_COMMIT = {".gitattributes": "".join(f"*{end} filter=lfs diff=lfs merge=lfs -text\n" for end in LARGE).encode()}
_PART = r"\w(?:[\w.-]{0,94}\w)?"
REPOSITORY_ID = re.compile(rf"(?!.*(--|\.\.)){_PART}(?:/{_PART})?")
LANGUAGE = re.compile(r"[a-z]{2,3}|multilingual|code")


def metadata(card: str) -> Any:
    """The text between the lines `---` at the start of a card; None if there is none."""
    block = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    return yaml.safe_load(block[1]) if block else None


# ---------------------------------------------------------------------------------------------------------------------
# Accounts and repositories


def _whoami(served: Hub, query: Query) -> Reply:
    user = _known(query)
    role = "write" if user.writes else "read"
    return as_json({"type": "user", "name": user.name, "auth": {"accessToken": {"role": role}}})


def _create(served: Hub, query: Query) -> Reply:
    payload, user = json.loads(query.body), _known(query)
    name = f"{payload['organization'] or user.name}/{payload['name']}"
    full, url = f"models/{name}", {"url": f"{served.endpoint}/{name}"}
    if not REPOSITORY_ID.fullmatch(name):
        raise Refused(400, None, f"Invalid repository name {name}")
    _require_write(user, name)
    if full in served.repositories:
        return as_json({**url, "error": "You already created this model repo"}, 409)
    first = snapshot_of(FIRST_COMMIT)
    private = payload.get("visibility") == "private"
    served.repositories[full] = Repository({DEFAULT_BRANCH: first.commit}, {first.commit: first}, private)
    return as_json(url)


def _auth_check(served: Hub, query: Query) -> Reply:
    _writable(served, query)
    return as_json({})


def _branch(served: Hub, query: Query) -> Reply:
    repository = _writable(served, query)
    if query.parts["branch"] in repository.branches:
        raise Refused(409, None, "Reference already exists")
    repository.branches[query.parts["branch"]] = repository.branches[DEFAULT_BRANCH]
    return as_json({})


def _refs(served: Hub, query: Query) -> Reply:
    repository = _writable(served, query)
    refs = [{"name": name, "ref": name, "targetCommit": commit} for name, commit in repository.branches.items()]
    tags, branches = ([ref for ref in refs if (ref["name"] in repository.tags) == kind] for kind in (True, False))
    return as_json({"branches": branches, "tags": tags, "converts": []})


def _known(query: Query) -> User:
    if query.user is None:
        raise Refused(401, None, "Invalid credentials in Authorization header")
    return query.user


def _require_write(user: User, name: str) -> None:
    if not user.writes or name.split("/")[0] != user.name:
        raise Refused(403, None, f"You don't have the rights to write to {name}")


def _writable(served: Hub, query: Query) -> Repository:
    repository = served.repositories.get(f"models/{query.parts['name']}")
    if repository is None:
        raise Refused(404, "RepoNotFound", "Repository not found")
    _require_write(_known(query), query.parts["name"])
    return repository


# ---------------------------------------------------------------------------------------------------------------------
# Files and commits


def _preupload(served: Hub, query: Query) -> Reply:
    """How each file is to be sent, and what is there under its name now."""
    here = _writable(served, query).at(query.parts["revision"])
    if here is None:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {query.parts['revision']}")
    answers = []
    for file in json.loads(query.body)["files"]:
        large = file["path"].endswith(LARGE) or file["size"] > LARGE_BYTES
        there, oid = here.files.get(file["path"]), None
        if there is not None:
            oid = hashlib.sha256(there).hexdigest() if large else blob_hash(there)
        mode = "lfs" if large else "regular"
        answers.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return as_json({"files": answers})


def _batch(served: Hub, query: Query) -> Reply:
    """Where to send what is not in the store yet."""
    _writable(served, query)
    objects = []
    for entry in json.loads(query.body)["objects"]:
        at = f"{served.endpoint}/large-files/{entry['oid']}"
        links = {"actions": {"upload": {"href": at}, "verify": {"href": f"{at}/verify"}}}
        objects.append({**entry, **({} if entry["oid"] in served.large_files else links)})
    return as_json({"transfer": "basic", "objects": objects})


def _store(served: Hub, query: Query) -> Reply:
    oid = hashlib.sha256(query.body).hexdigest()
    if oid != query.parts["oid"]:
        raise Refused(400, None, "The content is not what its name says")
    served.large_files[oid] = query.body
    return Reply(200, b"", {"ETag": f'"{oid}"'})


def _verify(served: Hub, query: Query) -> Reply:
    content = served.large_files.get(query.parts["oid"])
    if content is None or len(content) != json.loads(query.body)["size"]:
        raise Refused(404, None, "No such object")
    return as_json({})


def _commit(served: Hub, query: Query) -> Reply:
    """All operations, or none."""
    repository, branch = _writable(served, query), query.parts["revision"]
    if branch not in repository.branches or branch in repository.tags:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {branch}")
    files = dict(repository.commits[repository.branches[branch]].files)
    for line in query.body.splitlines():
        operation = json.loads(line)
        _apply(served, files, operation["key"], operation["value"])
    after = snapshot_of(files)
    repository.commits[after.commit] = after
    repository.branches[branch] = after.commit
    url = f"{served.endpoint}/{query.parts['name']}/commit/{after.commit}"
    return as_json({"success": True, "commitOid": after.commit, "commitUrl": url})


def _apply(served: Hub, files: dict[str, bytes], key: str, value: Any) -> None:
    if key == "file":
        files[value["path"]] = base64.b64decode(value["content"])
    elif key == "lfsFile":
        if value["oid"] not in served.large_files:
            raise Refused(400, None, f"{value['path']} was not uploaded")
        files[value["path"]] = served.large_files[value["oid"]]
    elif key == "deletedFile":
        if files.pop(value["path"], None) is None:
            raise Refused(404, "EntryNotFound", "A file with this name doesn't exist")
    elif key != "header":
        raise Refused(400, None, f"Unknown operation {key}")


# ---------------------------------------------------------------------------------------------------------------------
# Cards


def _validate(served: Hub, query: Query) -> Reply:
    errors = [{"message": message} for message in card_errors(json.loads(query.body)["content"])]
    return as_json({"errors": errors, "warnings": []}, 400 if errors else 200)


def card_errors(card: str) -> list[str]:
    """What the hub would say against a model card's metadata."""
    try:
        card_data = metadata(card)
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"]
    return list(_errors(card_data)) if isinstance(card_data, dict) else ["metadata must be a mapping"]


def _errors(card_data: dict[str, Any]) -> Iterator[str]:
    for key in ("base_model", "datasets"):
        for value in _as_list(card_data.get(key)):
            if not isinstance(value, str) or not REPOSITORY_ID.fullmatch(value):
                yield f'"{key}" with value "{value}" is not valid. Use an id from the hub.'
    for language in _as_list(card_data.get("language")):
        if not isinstance(language, str) or not LANGUAGE.fullmatch(language):
            yield f'"language" must be an ISO 639 code, not "{language}"'
    for key in ("license", "library_name", "pipeline_tag", "metrics", "tags"):
        if not all(isinstance(value, str) for value in _as_list(card_data.get(key))):
            yield f'"{key}" must hold strings'
    for model in _as_list(card_data.get("model-index")):
        if not isinstance(model.get("name"), str) or not isinstance(model.get("results"), list):
            yield '"model-index" needs name and results'
            continue
        for result in model["results"]:
            yield from _result_errors(result)


def _result_errors(result: dict[str, Any]) -> Iterator[str]:
    needed = {"task": ("type",), "dataset": ("type", "name")}
    for key, names in needed.items():
        for name in names:
            if not isinstance(result.get(key, {}).get(name), str):
                yield f'"model-index[0].results[0].{key}.{name}" is required'
    for metric in result.get("metrics") or [{}]:
        if not isinstance(metric.get("type"), str) or "value" not in metric:
            yield '"model-index[0].results[0].metrics" need type and value'


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


_MODEL = r"/api/models/(?P<name>[^/]+/[^/]+)"
ROUTES = (
    ("GET", "/api/whoami-v2", _whoami),
    ("POST", "/api/repos/create", _create),
    ("POST", "/api/validate-yaml", _validate),
    ("GET", f"{_MODEL}/auth-check/write", _auth_check),
    ("POST", f"{_MODEL}/branch/(?P<branch>[^/]+)", _branch),
    ("GET", f"{_MODEL}/refs", _refs),
    ("POST", f"{_MODEL}/preupload/(?P<revision>[^/]+)", _preupload),
    ("POST", f"{_MODEL}/commit/(?P<revision>[^/]+)", _commit),
    ("POST", r"/(?P<name>[^/]+/[^/]+)\.git/info/lfs/objects/batch", _batch),
    ("PUT", "/large-files/(?P<oid>[0-9a-f]{64})", _store),
    ("POST", "/large-files/(?P<oid>[0-9a-f]{64})/verify", _verify),
)
