"""A stand-in for the Hugging Face hub on loopback, which the real client libraries read through HF_ENDPOINT.

Trade-off taken: repositories are read into memory when they are published, and only those parts of the protocol
that the clients use are served: here reading (file download, repository description, tree, paths), and writing in
tests.support.hub_uploads. A commit is then immutable, as on the real hub, and the client code that names, caches and
pins revisions runs unmodified. Not chosen: patching `load_dataset` and `from_pretrained`, which is shorter, but
proves nothing about how those libraries resolve a revision or behave offline. Large-file redirects, pagination and Xet,
whose storage is a service of its own, are left out: clients send large files by LFS, which the hub accepts as well.
"""

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support import hub_uploads
from tests.support.hub_protocol import (
    DEFAULT_BRANCH,
    Failure,
    Query,
    Refused,
    Reply,
    Repository,
    Request,
    Snapshot,
    User,
    as_json,
    blob_hash,
    snapshot_of,
)

_NAME = r"(?P<name>[^/]+(?:/[^/]+)?)"
_API = rf"/api/(?P<kind>models|datasets|spaces)/{_NAME}"
# The clients parse a date for every commit; its value must not vary, or two runs would describe two commits.
_COMMIT_DATE = "2020-01-01T00:00:00.000Z"
# Settings of the developer's own shell would decide which cache, token or proxy the client under test uses.
_SHELL_SETTINGS = re.compile(r"(HF_|HUGGING|TRANSFORMERS_|PYTORCH_TRANSFORMERS_).*|.*_proxy", re.IGNORECASE)


@dataclass(frozen=True)
class Hub:
    """A running stand-in; names are written with their kind, as in "datasets/acme/reviews"."""

    endpoint: str
    token: str | None = field(repr=False)
    repositories: dict[str, Repository] = field(default_factory=dict, repr=False)
    requests: list[Request] = field(default_factory=list)
    gated: set[str] = field(default_factory=set)
    """Repositories that everybody can see but whose files nobody can download, with any token."""
    users: dict[str, User] = field(default_factory=dict, repr=False)
    """Accounts by their token."""
    large_files: dict[str, bytes] = field(default_factory=dict, repr=False)
    """What was uploaded by LFS, by its SHA-256, also where no commit names it yet."""
    failures: list[Failure] = field(default_factory=list)

    def publish(self, name: str, branch: str, folder: Path) -> str:
        """Point a branch at the folder's present contents; a second call moves the branch, as a push does."""
        snapshot = _read(folder)
        repository = self.repositories.setdefault(name, Repository())
        repository.commits[snapshot.commit] = snapshot
        repository.branches[branch] = snapshot.commit
        return snapshot.commit

    def revision(self, name: str, branch: str = DEFAULT_BRANCH) -> str:
        """The commit hash a branch or tag points at now."""
        return self.repositories[name].branches[branch]

    def environment(self, home: Path, *, token: str | None = None, offline: bool = False) -> dict[str, str]:
        """The environment of a client process, which must be a new one: the libraries read it at import.

        One usage counter goes to a fixed outside address regardless of HF_ENDPOINT, so it is switched off;
        telemetry too, so that `requests` holds only requests of the code under test.
        """
        kept = {key: value for key, value in os.environ.items() if not _SHELL_SETTINGS.fullmatch(key)}
        settings = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
        settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
        settings |= {"HF_TOKEN": token} if token else {}
        settings |= {"HF_HUB_OFFLINE": "1"} if offline else {}
        return kept | settings


@contextmanager
def hub(
    repositories: Mapping[str, Mapping[str, Path]], token: str | None = None, users: Mapping[str, User] | None = None
) -> Iterator[Hub]:
    """Serve repositories (name -> branch or tag -> folder) until the block ends.

    With `token`, every repository answers 401 to a request that does not carry it. `users`: those who may write, by
    their tokens.
    """
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        served = Hub(endpoint=f"http://127.0.0.1:{server.server_port}", token=token, users=dict(users or {}))
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
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
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
        do_PUT = do_GET

        def log_message(self, format: str, *args: object) -> None:
            """Requests are kept in a list; lines on stderr would only hide the failure of a test."""

    return Handler


def _answer(served: Hub, method: str, target: str, headers: Message, body: bytes) -> Reply:
    """Route on the still quoted path: a slash inside a branch name must not count as a separator."""
    path = urlsplit(target)
    form = method == "POST" and headers.get_content_type() == "application/x-www-form-urlencoded"
    parameters = parse_qs(body.decode() if form else path.query)
    try:
        _fail_if_asked(served, method, path.path)
        for verb, pattern, respond in _ROUTES:
            if (match := pattern.fullmatch(path.path)) and verb in ("", method):
                parts = {key: unquote(value) for key, value in match.groupdict().items() if value}
                user = _user(served, headers.get("Authorization"))
                gated = "name" in parts and _full_name(parts) in served.gated
                if gated and ("path" in parts or path.path.endswith("/auth-check")):
                    raise Refused(403, "GatedRepo", "Access to this repository is restricted")
                return respond(served, Query(parts, parameters, headers.get("Range"), body, user, gated))
        raise Refused(404, None, "Not served by this stand-in")
    except Refused as rejected:
        return rejected.reply


def _fail_if_asked(served: Hub, method: str, path: str) -> None:
    for failure in served.failures:
        if failure.times and failure.method == method and re.fullmatch(failure.path, path):
            failure.times -= 1
            raise Refused(failure.status, None, "Made to fail")


def _user(served: Hub, authorization: str | None) -> User | None:
    """The real hub denies that a private repository exists, unless a token came and was a wrong one."""
    token = (authorization or "").removeprefix("Bearer ")
    if authorization is None and served.token is not None:
        raise Refused(401, "RepoNotFound", "Repository not found")
    if authorization is not None and (served.token or served.users) and token not in {served.token, *served.users}:
        raise Refused(401, None, "Invalid credentials in Authorization header")
    return served.users.get(token)


def _reading(respond: Callable[[Snapshot, Query], Reply]) -> Callable[[Hub, Query], Reply]:
    return lambda served, query: respond(_find(served, query), query)


def _find(served: Hub, query: Query) -> Snapshot:
    revision = query.parts.get("revision", DEFAULT_BRANCH)
    snapshot = _repository(served, query).at(revision)
    if snapshot is None:
        raise Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
    return snapshot


def _full_name(parts: Mapping[str, str]) -> str:
    return f"{parts.get('kind', 'models')}/{parts['name']}"


def _repository(served: Hub, query: Query) -> Repository:
    repository = served.repositories.get(_full_name(query.parts))
    if repository is None:
        raise Refused(404, "RepoNotFound", "Repository not found")
    if repository.private and query.user is None:
        raise Refused(401, "RepoNotFound", "Repository not found")
    return repository


def _file(snapshot: Snapshot, query: Query) -> Reply:
    """One file, or a part of it, since streaming clients read by ranges. The ETag names the content."""
    content = snapshot.files.get(query.parts["path"])
    if content is None:
        raise Refused(404, "EntryNotFound", "Entry not found")
    headers = {
        "ETag": f'"{blob_hash(content)}"',
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


def _description(served: Hub, query: Query) -> Reply:
    """The same fields for models and datasets, since each client ignores those it does not know."""
    snapshot, private = _find(served, query), _repository(served, query).private
    siblings = [
        {"rfilename": path, "size": len(content), "blobId": blob_hash(content)}
        for path, content in snapshot.files.items()
    ]
    names = {"id": query.parts["name"], "sha": snapshot.commit, "lastModified": _COMMIT_DATE}
    gated = "manual" if query.gated else False
    flags: dict[str, object] = {"private": private, "gated": gated, "disabled": False, "downloads": 0, "likes": 0}
    card = hub_uploads.metadata(snapshot.files.get("README.md", b"").decode())
    return as_json({**names, **flags, "tags": [], "siblings": siblings, "cardData": card})


def _tree(snapshot: Snapshot, query: Query) -> Reply:
    folder = query.parts.get("path", "").strip("/")
    prefix = f"{folder}/" if folder else ""
    below = [path for path in _paths(snapshot) if path.startswith(prefix)]
    if folder and not below:
        raise Refused(404, "EntryNotFound", f"{folder} does not exist on this revision")
    recursive = query.parameters.get("recursive", ["false"])[0].lower() == "true"
    return as_json([_entry(snapshot, path) for path in below if recursive or "/" not in path[len(prefix) :]])


def _paths_info(snapshot: Snapshot, query: Query) -> Reply:
    """Unknown paths are omitted instead of rejected: that is how the clients test that a file exists."""
    paths = [path.strip("/") for path in query.parameters.get("paths", [])]
    known = set(_paths(snapshot))
    return as_json([_entry(snapshot, path) for path in paths if path in known])


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
    return {"type": "file", "oid": blob_hash(content), "size": len(content), **shared}


def _read(folder: Path) -> Snapshot:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    if not files:
        raise ValueError(f"nothing to publish: {folder} holds no file")
    return snapshot_of({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})


_ROUTES: tuple[tuple[str, re.Pattern[str], Callable[[Hub, Query], Reply]], ...] = (
    (
        "",
        re.compile(rf"/(?:(?P<kind>datasets|spaces)/)?{_NAME}/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
        _reading(_file),
    ),
    *((verb, re.compile(pattern), respond) for verb, pattern, respond in hub_uploads.ROUTES),
    ("", re.compile(rf"{_API}(?:/revision/(?P<revision>[^/]+))?"), _description),
    ("", re.compile(rf"{_API}/tree/(?P<revision>[^/]+)(?:/(?P<path>.+))?"), _reading(_tree)),
    ("", re.compile(rf"{_API}/auth-check"), _reading(lambda snapshot, query: as_json({}))),
    ("", re.compile(rf"{_API}/paths-info/(?P<revision>[^/]+)"), _reading(_paths_info)),
)
