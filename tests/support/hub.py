"""A stand-in for the Hugging Face hub on loopback, which the real client libraries read through HF_ENDPOINT.

Trade-off taken: repositories are read into memory when they are published, and only the read-only part of the
protocol that the clients use is served (file download, repository description, tree, paths). A commit is then
immutable, as on the real hub, and the client code that names, caches and pins revisions runs unmodified.
Refused: patching `load_dataset` and `from_pretrained`, which is shorter, but proves nothing about how those
libraries resolve a revision or behave offline. Large-file redirects, pagination and uploads are left out.
"""

import hashlib
import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

DEFAULT_BRANCH = "main"
_NAME = r"(?P<name>[^/]+(?:/[^/]+)?)"
_API = rf"/api/(?P<kind>models|datasets|spaces)/{_NAME}"
# The clients parse a date for every commit; its value must not vary, or two runs would describe two commits.
_COMMIT_DATE = "2020-01-01T00:00:00.000Z"
# Settings of the developer's own shell would decide which cache, token or proxy the client under test uses.
_SHELL_SETTINGS = re.compile(r"(HF_|HUGGING|TRANSFORMERS_|PYTORCH_TRANSFORMERS_).*|.*_proxy", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """One request as the server saw it: enough to assert who asked what, without the secret itself."""

    method: str
    path: str
    with_token: bool
    status: int


@dataclass(frozen=True)
class Reply:
    """What the server answers, kept apart from the socket so that routing stays plain functions."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Snapshot:
    """The files of one commit, in memory: a folder edited afterwards cannot change what a commit means."""

    commit: str
    files: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Repository:
    """Branches point at commits, and old commits stay reachable when a branch moves, as in git."""

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Snapshot] = field(default_factory=dict)

    def at(self, revision: str) -> Snapshot | None:
        return self.commits.get(self.branches.get(revision, revision))


@dataclass(frozen=True)
class Query:
    """A request matched to a route: the parts of its path, already unquoted, and what came with it."""

    parts: Mapping[str, str]
    parameters: Mapping[str, list[str]]
    byte_range: str | None
    gated: bool


class Refused(Exception):
    """Carries an error reply out of nested look-ups; the clients tell errors apart by code, not by status."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.reply = Reply(status, json.dumps({"error": message}).encode(), headers)


@dataclass(frozen=True)
class Hub:
    """A running stand-in; names are written with their kind, as in "datasets/acme/reviews"."""

    endpoint: str
    token: str | None = field(repr=False)
    repositories: dict[str, Repository] = field(default_factory=dict, repr=False)
    requests: list[Request] = field(default_factory=list)
    gated: set[str] = field(default_factory=set)
    """Repositories that everybody sees and whose files nobody is given, whatever the token."""

    def publish(self, name: str, branch: str, folder: Path) -> str:
        """Point a branch at the folder's present contents; a second call moves the branch, as a push does."""
        snapshot = _snapshot(folder)
        repository = self.repositories.setdefault(name, Repository())
        repository.commits[snapshot.commit] = snapshot
        repository.branches[branch] = snapshot.commit
        return snapshot.commit

    def revision(self, name: str, branch: str = DEFAULT_BRANCH) -> str:
        """The commit hash a branch or tag points at now."""
        return self.repositories[name].branches[branch]

    def environment(self, home: Path, *, token: str | None = None, offline: bool = False) -> dict[str, str]:
        """The environment of a client process, which must be a new one: the libraries read it at import.

        One usage counter goes to a fixed outside address whatever HF_ENDPOINT says, so it is switched off;
        telemetry too, so that `requests` holds only what the code under test asked for.
        """
        kept = {key: value for key, value in os.environ.items() if not _SHELL_SETTINGS.fullmatch(key)}
        settings = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
        settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        settings |= {"HF_TOKEN": token} if token else {}
        settings |= {"HF_HUB_OFFLINE": "1"} if offline else {}
        return kept | settings


@contextmanager
def hub(repositories: Mapping[str, Mapping[str, Path]], token: str | None = None) -> Iterator[Hub]:
    """Serve repositories (name -> branch or tag -> folder) until the block ends.

    With `token`, every repository answers 401 to a request that does not carry it.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        served = Hub(endpoint=f"http://127.0.0.1:{server.server_port}", token=token)
        for name, branches in repositories.items():
            for branch, folder in branches.items():
                served.publish(name, branch, folder)
        server.RequestHandlerClass = _handler(served)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()


def _handler(served: Hub) -> type[BaseHTTPRequestHandler]:
    """The base class speaks HTTP/1.0, one request per connection: no connection can outlive the server."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            reply = _answer(served, self.command, self.path, self.headers, body)
            with_token = "Authorization" in self.headers
            served.requests.append(Request(self.command, self.path, with_token, reply.status))
            self.send_response(reply.status)
            for key, value in {**reply.headers, "Content-Length": str(len(reply.body))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(reply.body)

        do_HEAD = do_GET
        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Requests are kept in a list; lines on stderr would only hide the failure of a test."""

    return Handler


def _answer(served: Hub, method: str, target: str, headers: Message, body: str) -> Reply:
    """Route on the still quoted path: a slash inside a branch name must not be taken for a separator."""
    path = urlsplit(target)
    parameters = parse_qs(body if method == "POST" else path.query)
    try:
        for pattern, respond in _ROUTES:
            if match := pattern.fullmatch(path.path):
                parts = {key: unquote(value) for key, value in match.groupdict().items() if value}
                _check_token(served, headers.get("Authorization"))
                gated = _repository(parts) in served.gated
                if gated and ("path" in parts or path.path.endswith("/auth-check")):
                    raise Refused(403, "GatedRepo", "Access to this repository is restricted")
                query = Query(parts, parameters, headers.get("Range"), gated)
                return respond(_find(served, parts), query)
        raise Refused(404, None, "Not served by this stand-in")
    except Refused as refused:
        return refused.reply


def _check_token(served: Hub, authorization: str | None) -> None:
    """The real hub denies that a private repository exists, unless a token came and was a wrong one."""
    if served.token is None or authorization == f"Bearer {served.token}":
        return
    if authorization is None:
        raise Refused(401, "RepoNotFound", "Repository not found")
    raise Refused(401, None, "Invalid credentials in Authorization header")


def _repository(parts: Mapping[str, str]) -> str:
    return f"{parts.get('kind', 'models')}/{parts['name']}"


def _find(served: Hub, parts: Mapping[str, str]) -> Snapshot:
    repository = served.repositories.get(_repository(parts))
    if repository is None:
        raise Refused(404, "RepoNotFound", "Repository not found")
    snapshot = repository.at(parts.get("revision", DEFAULT_BRANCH))
    if snapshot is None:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {parts.get('revision', DEFAULT_BRANCH)}")
    return snapshot


def _file(snapshot: Snapshot, query: Query) -> Reply:
    """One file, or a part of it, since streaming clients read by ranges. The ETag names the content."""
    content = snapshot.files.get(query.parts["path"])
    if content is None:
        raise Refused(404, "EntryNotFound", "Entry not found")
    headers = {
        "ETag": f'"{_blob_hash(content)}"',
        "X-Repo-Commit": snapshot.commit,
        "X-Linked-Size": str(len(content)),
        "Accept-Ranges": "bytes",
    }
    span = re.fullmatch(r"bytes=(\d+)-(\d*)", query.byte_range or "")
    if span is None:
        return Reply(200, content, headers)
    first, last = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
    if first > last:
        return Reply(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
    part = {"Content-Range": f"bytes {first}-{last}/{len(content)}"}
    return Reply(206, content[first : last + 1], headers | part)


def _description(snapshot: Snapshot, query: Query) -> Reply:
    """The same fields for models and datasets, since each client ignores those it does not know."""
    siblings = [
        {"rfilename": path, "size": len(content), "blobId": _blob_hash(content)}
        for path, content in snapshot.files.items()
    ]
    names = {"id": query.parts["name"], "sha": snapshot.commit, "lastModified": _COMMIT_DATE}
    gated = "manual" if query.gated else False
    flags: dict[str, object] = {"private": False, "gated": gated, "disabled": False, "downloads": 0, "likes": 0}
    card = snapshot.files.get("README.md", b"").decode()
    return _json({**names, **flags, "tags": [], "siblings": siblings, "cardData": metadata(card)})


def metadata(card: str) -> Any:
    """What stands between the lines `---` at the head of a card; None where there is nothing."""
    block = re.match(r"---\r?\n(.*?)\r?\n---", card, re.DOTALL)
    return yaml.safe_load(block[1]) if block else None


def _tree(snapshot: Snapshot, query: Query) -> Reply:
    folder = query.parts.get("path", "").strip("/")
    prefix = f"{folder}/" if folder else ""
    below = [path for path in _paths(snapshot) if path.startswith(prefix)]
    if folder and not below:
        raise Refused(404, "EntryNotFound", f"{folder} does not exist on this revision")
    recursive = query.parameters.get("recursive", ["false"])[0].lower() == "true"
    return _json([_entry(snapshot, path) for path in below if recursive or "/" not in path[len(prefix) :]])


def _paths_info(snapshot: Snapshot, query: Query) -> Reply:
    """Unknown paths are left out instead of refused: that is how the clients test that a file exists."""
    asked = [path.strip("/") for path in query.parameters.get("paths", [])]
    known = set(_paths(snapshot))
    return _json([_entry(snapshot, path) for path in asked if path in known])


def _paths(snapshot: Snapshot) -> list[str]:
    """Files and the folders above them; git, and so the hub, knows no folder of its own."""
    folders = {parent.as_posix() for path in snapshot.files for parent in Path(path).parents} - {"."}
    return sorted(folders | set(snapshot.files))


def _entry(snapshot: Snapshot, path: str) -> dict[str, object]:
    content = snapshot.files.get(path)
    commit = {"id": snapshot.commit, "title": "published", "date": _COMMIT_DATE}
    shared: dict[str, object] = {"path": path, "lastCommit": commit}
    if content is None:
        folder_hash = hashlib.sha1(f"{snapshot.commit}:{path}".encode()).hexdigest()
        return {"type": "directory", "oid": folder_hash, "size": 0, **shared}
    return {"type": "file", "oid": _blob_hash(content), "size": len(content), **shared}


def _json(value: object) -> Reply:
    return Reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})


def _snapshot(folder: Path) -> Snapshot:
    """The hash depends on paths and contents alone: the same files are the same commit on any machine."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    if not found:
        raise ValueError(f"nothing to publish: {folder} holds no file")
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
    listing = "".join(f"{_blob_hash(content)} {path}\n" for path, content in files.items())
    return Snapshot(hashlib.sha1(listing.encode()).hexdigest(), files)


def _blob_hash(content: bytes) -> str:
    """Git's own name for the content, which is what the real hub sends as ETag for a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


_ROUTES: tuple[tuple[re.Pattern[str], Callable[[Snapshot, Query], Reply]], ...] = (
    (re.compile(rf"/(?:(?P<kind>datasets|spaces)/)?{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"), _file),
    (re.compile(rf"{_API}(?:/revision/(?P<revision>[^/]+))?"), _description),
    (re.compile(rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?"), _tree),
    (re.compile(rf"{_API}/auth-check"), lambda snapshot, query: _json({})),
    (re.compile(rf"{_API}/paths-info/(?P<revision>[^/]+)"), _paths_info),
)
