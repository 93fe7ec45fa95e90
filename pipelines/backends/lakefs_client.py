"""One repository on a lakeFS server: the calls that the store makes, each with a timeout, and what became of it.

A call ends in one of four ways: an answer; `Refused`, the server's definite no; `UnavailableError` after retries with
jitter up to a deadline; and, for the one call that may not be made twice, the merge, `Unanswered`: it may have
happened or not, and may still. Uploads, commits and deletions can be repeated: a repeat finds its own work done.

Plain HTTP (the API is `/api/v1` of any lakeFS 1.x): decision 0010 says why not through `lakefs_sdk`.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from pipelines.errors import TerminalError, UnavailableError, explain

if TYPE_CHECKING:
    from pydantic import SecretStr
    from urllib3 import BaseHTTPResponse, PoolManager

MAIN = "main"
_PAGE = 1000
_CHUNK = 1 << 20
_META = "x-lakefs-meta-"
#: With 400, as if the caller were to blame: what the server says when its own storage fails, such as a full disk.
_WRITE_FAILED = "failed to write to storage"
_COMMIT = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Server:
    """Where lakeFS is, and how patient to be with it."""

    endpoint: str
    """Such as http://127.0.0.1:8000."""
    access_key_id: str
    secret_access_key: SecretStr
    timeout: float = 60.0
    """Seconds that the server may take to answer one call."""
    deadline: float = 60.0
    """Seconds after which a call that keeps failing is given up."""


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


class Refused(TerminalError):
    """The server's definite no: nothing was done."""

    def __init__(self, status: int, text: str) -> None:
        """Keeps the status, and what the server said."""
        super().__init__(f"lakeFS refused: {status} {text}".strip())
        self.status = status
        self.text = text


class Unanswered(UnavailableError):
    """A timeout, a dropped connection or a 5xx: the work may have been done."""


class Repository:
    """The calls. Connects when first used, so that it may be made before a fork. Safe for threads."""

    def __init__(self, server: Server, name: str) -> None:
        """Connects to nothing."""
        self.server = server
        self.name = name

    # -- repository and refs ---------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Whether the repository is there."""
        return self._get("") is not None

    def create(self, storage_namespace: str) -> None:
        """Makes the repository; nothing happens when it is there."""
        body = {"name": self.name, "storage_namespace": storage_namespace, "default_branch": MAIN}
        with _done_already(409):
            self._call("POST", "/repositories", body=body)

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
            self._call("POST", self._at("/branches"), body={"name": name, "source": source})

    def delete_branch(self, name: str) -> None:
        """Deletes a branch; nothing happens when it is gone."""
        with _done_already(404):
            self._call("DELETE", self._at(f"/branches/{quote(name)}"))

    def create_tag(self, name: str, commit: str) -> None:
        """Makes a tag; nothing happens when there is one of this name."""
        with _done_already(409):
            self._call("POST", self._at("/tags"), body={"id": name, "ref": commit})

    def delete_tag(self, name: str) -> None:
        """Deletes a tag; nothing happens when it is gone."""
        with _done_already(404):
            self._call("DELETE", self._at(f"/tags/{quote(name)}"))

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
            return bytes(self._call("GET", self._at(f"/refs/{quote(ref)}/objects"), query={"path": path}).data)
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

        answer = self._call("GET", self._at(f"/refs/{quote(ref)}/objects"), query={"path": path}, whole=False)
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
        answer = self._call("POST", place, query={"path": path}, content=content, headers=headers)
        return _stored(branch, {"metadata": metadata, **answer.json()})

    def copy(self, branch: str, found: Stored) -> None:
        """Puts a copy of another ref's object on a branch, under the same path; the server copies the bytes."""
        body = {"src_path": found.path, "src_ref": found.ref}
        self._call(
            "POST", self._at(f"/branches/{quote(branch)}/objects/copy"), query={"dest_path": found.path}, body=body
        )

    def delete(self, branch: str, paths: Sequence[str]) -> None:
        """Deletes objects from a branch, uncommitted; nothing happens to those that are not there."""
        for start in range(0, len(paths), _PAGE):
            with _done_already(404):
                body = {"paths": list(paths[start : start + _PAGE])}
                self._call("POST", self._at(f"/branches/{quote(branch)}/objects/delete"), body=body)

    # -- history ---------------------------------------------------------------------------------------------------

    def commit(self, branch: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        """Commits what a branch holds uncommitted; nothing happens when that is nothing."""
        body = {"message": message, "metadata": dict(metadata or {})}
        try:
            self._call("POST", self._at(f"/branches/{quote(branch)}/commits"), body=body)
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
        answer = self._once("POST", self._at(f"/refs/{quote(source)}/merge/{MAIN}"), body=body)
        return str(answer.json()["reference"])

    def merge_base(self, ref: str) -> str:
        """The commit of main from which a ref went its own way."""
        return str(self._call("GET", self._at(f"/refs/{quote(ref)}/merge/{MAIN}")).json()["base_commit_id"])

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

    def changes(self, ref: str) -> list[str]:
        """The paths that merging a ref into main would touch."""
        return [str(found["path"]) for found in self._pages(f"/refs/{MAIN}/diff/{quote(ref)}", type="three_dot")]

    def uncommitted(self, branch: str) -> list[str]:
        """The paths that a branch holds uncommitted."""
        return [str(found["path"]) for found in self._pages(f"/branches/{quote(branch)}/diff")]

    def reset(self, branch: str, path: str) -> None:
        """Throws away what a branch holds uncommitted under a path.

        Raises:
            Refused: 403 on a protected branch, whoever asks.
        """
        with _done_already(404):
            self._call("PUT", self._at(f"/branches/{quote(branch)}"), body={"type": "object", "path": path})

    # -- branch protection -----------------------------------------------------------------------------------------

    def protected(self) -> list[str]:
        """The patterns of protected branches."""
        return [str(rule["pattern"]) for rule in self._get("/settings/branch_protection") or []]

    def protect(self, patterns: Sequence[str]) -> None:
        """Sets the patterns of protected branches. Takes effect after some seconds."""
        self._call("PUT", self._at("/settings/branch_protection"), body=[{"pattern": pattern} for pattern in patterns])

    # -- one call --------------------------------------------------------------------------------------------------

    @cached_property
    def _pool(self) -> PoolManager:
        from urllib3 import PoolManager

        # urllib3 would repeat calls by itself, without asking what became of them.
        return PoolManager(maxsize=8, retries=False)

    @cached_property
    def namespace(self) -> str:
        """Where the repository's bytes lie, as the server names it."""
        return str(self._call("GET", self._at("")).json()["storage_namespace"]).rstrip("/")

    def _at(self, place: str) -> str:
        return f"/repositories/{self.name}{place}"

    def _once(
        self,
        method: str,
        place: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        content: bytes | Path | None = None,
        headers: Mapping[str, str] | None = None,
        whole: bool = True,
    ) -> BaseHTTPResponse:
        from urllib3 import Timeout
        from urllib3.exceptions import HTTPError

        url = f"{self.server.endpoint.rstrip('/')}/api/v1{place}" + (f"?{urlencode(query)}" if query else "")
        data: bytes | Path = b"" if content is None else content
        sent = {"Accept": "application/json", "Authorization": self._authorization(), **(headers or {})}
        if content is not None:
            sent["Content-Type"] = "application/octet-stream"
        elif body is not None:
            sent["Content-Type"], data = "application/json", json.dumps(body).encode()
        size = data.stat().st_size if isinstance(data, Path) else len(data)
        if method in ("POST", "PUT"):
            sent["Content-Length"] = str(size)
        timeout = Timeout(connect=min(5.0, self.server.timeout), read=self.server.timeout)
        # Causes are cut off: they carry what was sent.
        try:
            with data.open("rb") if isinstance(data, Path) else contextlib.nullcontext(data or None) as stream:
                answer = self._pool.request(
                    method, url, body=stream, headers=sent, timeout=timeout, preload_content=whole
                )
            if answer.status < 300:
                return answer
            text = _said(answer.data)
        except (HTTPError, OSError) as error:
            raise Unanswered(type(error).__name__) from None
        if answer.status == 401 or (answer.status == 403 and "protected" not in text):
            raise TerminalError(
                explain(
                    f"lakeFS {self.server.endpoint}",
                    f"the server refused the access key ({answer.status} {text})",
                    remedy="check OVERNIGHT_LAKEFS_ACCESS_KEY_ID and OVERNIGHT_LAKEFS_SECRET_ACCESS_KEY",
                )
            )
        if answer.status == 429 or answer.status >= 500 or _WRITE_FAILED in text:
            raise Unanswered(f"{answer.status} {text}".strip())
        raise Refused(answer.status, text)

    def _authorization(self) -> str:
        pair = f"{self.server.access_key_id}:{self.server.secret_access_key.get_secret_value()}"
        return "Basic " + b64encode(pair.encode()).decode()

    def _call(self, method: str, place: str, **named: Any) -> BaseHTTPResponse:
        wait = self.patience()
        while True:
            try:
                return self._once(method, place, **named)
            except Unanswered as error:
                problem = str(error)
            if not wait():
                raise self.unavailable(problem)

    def patience(self) -> Callable[[], bool]:
        """Waits a little longer each time it is called, with jitter; False when the deadline would pass."""
        end = time.monotonic() + self.server.deadline
        pause = 0.05

        def wait() -> bool:
            nonlocal pause
            seconds = random.uniform(pause / 2, pause)  # noqa: S311 (jitter is no secret)
            if time.monotonic() + seconds > end:
                return False
            time.sleep(seconds)
            pause = min(pause * 2, 5.0)
            return True

        return wait

    def unavailable(self, problem: str) -> UnavailableError:
        """The error for a server that does not answer as it should; it says so when the server's disk is full."""
        if "no space left on device" in problem:
            remedy = "free some space and run it again"
            return UnavailableError(
                explain(f"lakeFS {self.server.endpoint}", f"its disk is full ({problem})", remedy=remedy)
            )
        return UnavailableError(
            explain(
                f"lakeFS {self.server.endpoint}",
                f"no proper answer for {self.server.deadline:g} s ({problem})",
                remedy="see that the server is up and reachable; the same call again finds out what happened",
            )
        )

    def _get(self, place: str, **query: str) -> Any:
        """The answer's JSON, or None for 404."""
        try:
            return self._call("GET", self._at(place), query=query).json()
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


def _said(body: bytes) -> str:
    """The message in an error's body, cut short in the middle; a proxy's page says nothing to us."""
    try:
        text = str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return ""
    return text if len(text) <= 500 else f"{text[:200]} ... {text[-300:]}"  # what caused it stands at the end


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
