"""What the parts of the stand-in hub share: requests, replies, users, and repositories of commits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

DEFAULT_BRANCH = "main"


@dataclass(frozen=True)
class Request:
    """One request as the server saw it: enough to assert who requested what, without the secret itself."""

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
    """Branches point at commits, and old commits stay reachable when a branch moves, as in git.

    Attributes:
        branches: name of a branch or tag -> commit.
        tags: which of these names are tags.
    """

    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, Snapshot] = field(default_factory=dict)
    private: bool = False
    tags: set[str] = field(default_factory=set)

    def at(self, revision: str) -> Snapshot | None:
        return self.commits.get(self.branches.get(revision, revision))


@dataclass(frozen=True)
class Query:
    """A request matched to a route: the parts of its path, already unquoted, and what came with it.

    Attributes:
        user: the owner of its token.
    """

    parts: Mapping[str, str]
    parameters: Mapping[str, list[str]]
    byte_range: str | None
    body: bytes = b""
    user: User | None = None
    gated: bool = False


class Refused(Exception):
    """Carries an error reply out of nested look-ups; the clients tell errors apart by code, not by status."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self.reply = Reply(status, json.dumps({"error": message}).encode(), headers)


@dataclass(frozen=True)
class User:
    """An account; `writes`: whether its token may do more than read."""

    name: str
    writes: bool = True


@dataclass
class Failure:
    """The next `times` requests of this method and path (a pattern) are answered with `status` and not carried out."""

    method: str
    path: str
    status: int
    times: int = 1


def as_json(value: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


def snapshot_of(files: Mapping[str, bytes]) -> Snapshot:
    """The hash depends on paths and contents alone: the same files are the same commit on any machine."""
    listing = "".join(f"{blob_hash(content)} {path}\n" for path, content in sorted(files.items()))
    return Snapshot(hashlib.sha1(listing.encode()).hexdigest(), dict(sorted(files.items())))


def blob_hash(content: bytes) -> str:
    """Git's own name for the content, which is what the real hub sends as ETag for a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
