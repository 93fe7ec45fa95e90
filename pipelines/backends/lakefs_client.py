"""One repository on a lakeFS server: the calls that the store makes.

All but the merge can be repeated, and are, until the server answers: a repeat finds its own work done.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pipelines.backends.lakefs_http import Calls, Refused, Server, Unanswered
from pipelines.errors import UnavailableError

MAIN = "main"
_PAGE = 1000
_CHUNK = 1 << 20
_META = "x-lakefs-meta-"
_COMMIT = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """One object of a branch or a commit."""

    ref: str
    """The branch or commit that it was found on."""
    path: str
    address: str
    """Where its bytes lie: no two uploads share it."""
    checksum: str
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class LogEntry:
    """One commit."""

    id: str
    at: int
    """Seconds since 1970, by the server's clock."""
    metadata: Mapping[str, str]


class Repository:
    """The calls. Safe for threads."""

    def __init__(self, server: Server, name: str) -> None:
        """Connects to nothing."""
        self.server = server
        self.name = name
        self._calls = Calls(server)

    # -- repository and refs ---------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the repository is there."""
        return self._get("") is not None

    def create(self, storage_namespace: str) -> None:
        """Makes the repository; nothing happens when it is there."""
        body = {"name": self.name, "storage_namespace": storage_namespace, "default_branch": MAIN}
        with _done_already(409):
            self._calls.call("POST", "/repositories", body=body)

    def head(self, branch: str) -> str | None:
        """The commit id of a branch's head, or None."""
        found = self._get(f"/branches/{quote(branch)}")
        return None if found is None else str(found["commit_id"])

    def branches(self, prefix: str) -> list[str]:
        """The names of branches that begin so."""
        return [str(found["id"]) for found in self._pages("/branches", prefix=prefix)]

    def create_branch(self, name: str, source: str) -> None:
        """Makes a branch from a ref; nothing happens when there is one of this name."""
        with _done_already(409):
            self._calls.call("POST", self._at("/branches"), body={"name": name, "source": source})

    def delete_branch(self, name: str) -> None:
        """Deletes a branch; nothing happens when it is gone."""
        with _done_already(404):
            self._calls.call("DELETE", self._at(f"/branches/{quote(name)}"))

    def create_tag(self, name: str, commit: str) -> None:
        """Makes a tag; nothing happens when there is one of this name."""
        with _done_already(409):
            self._calls.call("POST", self._at("/tags"), body={"id": name, "ref": commit})

    def delete_tag(self, name: str) -> None:
        """Deletes a tag; nothing happens when it is gone."""
        with _done_already(404):
            self._calls.call("DELETE", self._at(f"/tags/{quote(name)}"))

    # -- objects ---------------------------------------------------------------------------------------------------

    def stat(self, ref: str, path: str) -> Stored | None:
        """One object, or None."""
        found = self._get(f"/refs/{quote(ref)}/objects/stat", path=path, user_metadata="true")
        return None if found is None else _stored(ref, found)

    def objects(self, ref: str, prefix: str, amount: int = _PAGE) -> Iterator[Stored]:
        """Every object below a prefix, by path; nothing when there is no such ref."""
        pages = self._pages(f"/refs/{quote(ref)}/objects/ls", amount, prefix=prefix, user_metadata="true")
        return (_stored(ref, found) for found in pages)

    def read(self, ref: str, path: str) -> bytes | None:
        """A small object's bytes, or None."""
        try:
            return bytes(self._calls.call("GET", self._at(f"/refs/{quote(ref)}/objects"), query={"path": path}).data)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def stream(self, ref: str, path: str) -> Iterator[bytes]:
        """An object's bytes, piece by piece.

        Raises:
            Refused: 404, there is none; 410, its bytes are gone.
            Unanswered: the connection broke halfway.
        """
        from urllib3.exceptions import HTTPError

        answer = self._calls.call("GET", self._at(f"/refs/{quote(ref)}/objects"), query={"path": path}, whole=False)
        try:
            yield from answer.stream(_CHUNK)
        except (HTTPError, OSError) as error:
            raise Unanswered(type(error).__name__) from None
        finally:
            answer.release_conn()

    def upload(
        self,
        branch: str,
        path: str,
        content: bytes | Path,
        metadata: Mapping[str, str] | None = None,
        *,
        if_absent: bool = False,
    ) -> Stored:
        """Writes an object on a branch, uncommitted. A file is streamed.

        Raises:
            Refused: 412 when `if_absent` and there is one; 404 when there is no such branch.
        """
        headers = {_META + key: value for key, value in (metadata or {}).items()}
        if if_absent:
            headers["If-None-Match"] = "*"
        place = self._at(f"/branches/{quote(branch)}/objects")
        answer = self._calls.call("POST", place, query={"path": path}, content=content, headers=headers)
        return _stored(branch, {"metadata": metadata, **answer.json()})

    def copy(self, branch: str, found: Stored) -> None:
        """Puts a copy of another ref's object on a branch, under the same path; the server copies the bytes."""
        body = {"src_path": found.path, "src_ref": found.ref}
        self._calls.call(
            "POST", self._at(f"/branches/{quote(branch)}/objects/copy"), query={"dest_path": found.path}, body=body
        )

    def delete(self, branch: str, paths: Sequence[str]) -> None:
        """Deletes objects from a branch, uncommitted; nothing happens to those that are not there."""
        for start in range(0, len(paths), _PAGE):
            with _done_already(404):
                body = {"paths": list(paths[start : start + _PAGE])}
                self._calls.call("POST", self._at(f"/branches/{quote(branch)}/objects/delete"), body=body)

    # -- history ---------------------------------------------------------------------------------------------------

    def commit(self, branch: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        """Commits what a branch holds uncommitted; nothing happens when that is nothing."""
        body = {"message": message, "metadata": dict(metadata or {})}
        try:
            self._calls.call("POST", self._at(f"/branches/{quote(branch)}/commits"), body=body)
        except Refused as error:
            if error.status != 400 or "no changes" not in error.text:
                raise

    def merge(self, source: str, message: str, metadata: Mapping[str, str]) -> str:
        """Merges a ref into main, and returns the merge commit's id. Never repeated by itself.

        Not squashed: that the source is a parent of main's head is how the server knows that a second merge is one.

        Raises:
            Refused: 409 conflict; 400 no changes, or uncommitted changes on main; 412 a hook said no.
            Unanswered: it may have happened.
        """
        body = {"message": message, "metadata": dict(metadata)}
        answer = self._calls.once("POST", self._at(f"/refs/{quote(source)}/merge/{MAIN}"), body=body)
        return str(answer.json()["reference"])

    def merge_base(self, ref: str) -> str:
        """The commit of main from which a ref went its own way."""
        return str(self._calls.call("GET", self._at(f"/refs/{quote(ref)}/merge/{MAIN}")).json()["base_commit_id"])

    def get_commit(self, commit: str) -> LogEntry | None:
        """A commit by its full id, or None."""
        if not _COMMIT.fullmatch(commit):  # the server takes branches, tags and shortened ids as well
            return None
        found = self._get(f"/commits/{commit}")
        return None if found is None else _entry(found)

    def log(self, ref: str, *, stop_at: str | None = None, path: str | None = None) -> Iterator[LogEntry]:
        """Commits from a ref backwards, newest first, a small page first; nothing when there is no such ref.

        Args:
            stop_at: the last commit to show.
            path: only commits that touched this object.
        """
        query = {"first_parent": "true"}
        if stop_at is not None:
            query["stop_at"] = stop_at
        if path is not None:
            query["objects"] = path
        return (_entry(found) for found in self._pages(f"/refs/{quote(ref)}/commits", 20, **query))

    def changes(self, since: str, ref: str) -> list[str]:
        """The paths that differ between two refs."""
        pages = self._pages(f"/refs/{quote(since)}/diff/{quote(ref)}", type="two_dot")
        return [str(found["path"]) for found in pages]

    def uncommitted(self, branch: str) -> list[str]:
        """The paths that a branch holds uncommitted."""
        return [str(found["path"]) for found in self._pages(f"/branches/{quote(branch)}/diff")]

    def revert(self, branch: str, commit: str) -> None:
        """Commits on a branch what undoes a commit of it."""
        self._calls.call(
            "POST", self._at(f"/branches/{quote(branch)}/revert"), body={"ref": commit, "parent_number": 1}
        )

    def reset(self, branch: str, path: str) -> None:
        """Throws away what a branch holds uncommitted under a path.

        Raises:
            Refused: 403 on a protected branch, whoever asks.
        """
        with _done_already(404):
            self._calls.call("PUT", self._at(f"/branches/{quote(branch)}"), body={"type": "object", "path": path})

    # -- branch protection -----------------------------------------------------------------------------------------

    def protected(self) -> list[str]:
        """The patterns of protected branches."""
        return [str(rule["pattern"]) for rule in self._get("/settings/branch_protection") or []]

    def protect(self, patterns: Sequence[str]) -> None:
        """Sets the patterns of protected branches. Takes effect after some seconds."""
        self._calls.call(
            "PUT", self._at("/settings/branch_protection"), body=[{"pattern": pattern} for pattern in patterns]
        )

    # -- inner -----------------------------------------------------------------------------------------------------

    def patience(self) -> Callable[[], bool]:
        """See `Calls`."""
        return self._calls.patience()

    def unavailable(self, problem: str) -> UnavailableError:
        """See `Calls`."""
        return self._calls.unavailable(problem)

    @cached_property
    def namespace(self) -> str:
        """Where the repository's bytes lie, as the server names it."""
        return str(self._calls.call("GET", self._at("")).json()["storage_namespace"]).rstrip("/")

    def _at(self, place: str) -> str:
        return f"/repositories/{self.name}{place}"

    def _get(self, place: str, **query: str) -> Any:
        """The answer's JSON, or None for 404."""
        try:
            return self._calls.call("GET", self._at(place), query=query).json()
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def _pages(self, place: str, amount: int = _PAGE, **query: str) -> Iterator[Any]:
        after = ""
        while (page := self._get(place, after=after, amount=str(amount), **query)) is not None:
            yield from page["results"]
            if not page["pagination"]["has_more"]:
                return
            after, amount = page["pagination"]["next_offset"], _PAGE


def _stored(ref: str, found: Mapping[str, Any]) -> Stored:
    return Stored(
        ref=ref,
        path=found["path"],
        address=found["physical_address"],
        checksum=found["checksum"],
        size=int(found.get("size_bytes") or 0),
        metadata=dict(found.get("metadata") or {}),
    )


def _entry(found: Mapping[str, Any]) -> LogEntry:
    return LogEntry(id=found["id"], at=int(found["creation_date"]), metadata=dict(found.get("metadata") or {}))


@contextlib.contextmanager
def _done_already(status: int) -> Iterator[None]:
    """For calls whose repeat is answered with this status."""
    try:
        yield
    except Refused as error:
        if error.status != status:
            raise
