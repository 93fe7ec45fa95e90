"""One repository on a lakeFS server: the calls that the store makes.

All but the merge can be repeated, and are, until the server answers: a repeat finds its own work done.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pipelines.backends.lakefs_http import Calls, Refused, Server, Unanswered
from pipelines.errors import UnavailableError

if TYPE_CHECKING:
    from lakefs_sdk import Commit, ObjectStats
    from lakefs_sdk.client import LakeFSClient

Answer = TypeVar("Answer")
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
        return self._found(self._lake.repositories_api.get_repository) is not None

    def create(self, storage_namespace: str) -> None:
        """Makes the repository; nothing happens when it is there."""
        from lakefs_sdk import RepositoryCreation

        wanted = RepositoryCreation(name=self.name, storage_namespace=storage_namespace, default_branch=MAIN)
        with _done_already(409):
            self._calls.call(self._lake.repositories_api.create_repository, wanted)

    def head(self, branch: str) -> str | None:
        """The commit id of a branch's head, or None."""
        found = self._found(self._lake.branches_api.get_branch, branch)
        return None if found is None else str(found.commit_id)

    def branches(self, prefix: str) -> list[str]:
        """The names of branches that begin so."""
        return [found.id for found in self._pages(self._lake.branches_api.list_branches, prefix=prefix)]

    def create_branch(self, name: str, source: str) -> None:
        """Makes a branch from a ref; nothing happens when there is one of this name."""
        from lakefs_sdk import BranchCreation

        with _done_already(409):
            self._call(self._lake.branches_api.create_branch, BranchCreation(name=name, source=source))

    def delete_branch(self, name: str) -> None:
        """Deletes a branch; nothing happens when it is gone."""
        with _done_already(404):
            self._call(self._lake.branches_api.delete_branch, name)

    def create_tag(self, name: str, commit: str) -> None:
        """Makes a tag; nothing happens when there is one of this name."""
        from lakefs_sdk import TagCreation

        with _done_already(409):
            self._call(self._lake.tags_api.create_tag, TagCreation(id=name, ref=commit))

    def delete_tag(self, name: str) -> None:
        """Deletes a tag; nothing happens when it is gone."""
        with _done_already(404):
            self._call(self._lake.tags_api.delete_tag, name)

    # -- objects ---------------------------------------------------------------------------------------------------

    def stat(self, ref: str, path: str) -> Stored | None:
        """One object, or None."""
        found = self._found(self._lake.objects_api.stat_object, ref, path, user_metadata=True)
        return None if found is None else _stored(ref, found)

    def objects(self, ref: str, prefix: str, amount: int = _PAGE) -> Iterator[Stored]:
        """Every object below a prefix, by path; nothing when there is no such ref."""
        pages = self._pages(self._lake.objects_api.list_objects, ref, amount=amount, prefix=prefix, user_metadata=True)
        return (_stored(ref, found) for found in pages)

    def read(self, ref: str, path: str) -> bytes | None:
        """A small object's bytes, or None."""
        found = self._found(self._lake.objects_api.get_object, ref, path)
        return None if found is None else bytes(found)

    def stream(self, ref: str, path: str) -> Iterator[bytes]:
        """An object's bytes, piece by piece.

        Raises:
            Refused: 404, there is none; 410, its bytes are gone.
            Unanswered: the connection broke halfway.
        """
        from urllib3.exceptions import HTTPError

        place = f"/repositories/{self.name}/refs/{quote(ref, safe='')}/objects"
        answer = self._calls.call(self._calls.streamed, "GET", place, {"path": path})
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
        from lakefs_sdk import ObjectStats

        size = content.stat().st_size if isinstance(content, Path) else len(content)
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(size)}
        headers |= {_META + key: value for key, value in (metadata or {}).items()}
        if if_absent:
            headers["If-None-Match"] = "*"
        place = f"/repositories/{self.name}/branches/{quote(branch, safe='')}/objects"

        def send(**limits: Any) -> ObjectStats:
            with content.open("rb") if isinstance(content, Path) else contextlib.nullcontext(content) as body:
                answer = self._calls.streamed("POST", place, {"path": path}, headers=headers, body=body, **limits)
                return ObjectStats.from_dict(json.loads(answer.data))

        return _stored(branch, self._calls.call(send), metadata)

    def copy(self, branch: str, found: Stored) -> None:
        """Puts a copy of another ref's object on a branch, under the same path; the server copies the bytes."""
        from lakefs_sdk import ObjectCopyCreation

        source = ObjectCopyCreation(src_path=found.path, src_ref=found.ref)
        self._call(self._lake.objects_api.copy_object, branch, found.path, source)

    def delete(self, branch: str, paths: Sequence[str]) -> None:
        """Deletes objects from a branch, uncommitted; nothing happens to those that are not there.

        Raises:
            Refused: 403 on a protected branch. Unanswered: it failed for some.
        """
        from lakefs_sdk import PathList

        for start in range(0, len(paths), _PAGE):
            with _done_already(404):
                some = PathList(paths=list(paths[start : start + _PAGE]))
                answer = self._call(self._lake.objects_api.delete_objects, branch, some)
                for error in answer.errors:  # of some paths, in an answer that is a success otherwise
                    status, text = error.status_code, f"{error.path}: {error.message}"[:500]
                    raise Refused(status, text) if status < 500 else Unanswered(f"{status} {text}")

    # -- history ---------------------------------------------------------------------------------------------------

    def commit(self, branch: str, message: str, metadata: Mapping[str, str] | None = None) -> None:
        """Commits what a branch holds uncommitted; nothing happens when that is nothing."""
        from lakefs_sdk import CommitCreation

        wanted = CommitCreation(message=message, metadata=dict(metadata or {}))
        try:
            self._call(self._lake.commits_api.commit, branch, wanted)
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
        from lakefs_sdk import Merge

        wanted = Merge(message=message, metadata=dict(metadata))
        answer = self._calls.once(self._lake.refs_api.merge_into_branch, self.name, source, MAIN, wanted)
        return str(answer.reference)

    def merge_base(self, ref: str) -> str:
        """The commit of main from which a ref went its own way."""
        return str(self._call(self._lake.refs_api.find_merge_base, ref, MAIN).base_commit_id)

    def get_commit(self, commit: str) -> LogEntry | None:
        """A commit by its full id, or None."""
        if not _COMMIT.fullmatch(commit):  # the server takes branches, tags and shortened ids as well
            return None
        found = self._found(self._lake.commits_api.get_commit, commit)
        return None if found is None else _entry(found)

    def log(self, ref: str, *, stop_at: str | None = None, path: str | None = None) -> Iterator[LogEntry]:
        """Commits from a ref backwards, newest first, a small page first; nothing when there is no such ref.

        Args:
            stop_at: the last commit to show.
            path: only commits that touched this object.
        """
        pages = self._pages(
            self._lake.refs_api.log_commits,
            ref,
            amount=20,
            first_parent=True,
            stop_at=stop_at,
            objects=None if path is None else [path],
        )
        return (_entry(found) for found in pages)

    def changes(self, since: str, ref: str) -> list[str]:
        """The paths that differ between two refs."""
        pages = self._pages(self._lake.refs_api.diff_refs, since, ref, type="two_dot")
        return [str(found.path) for found in pages]

    def uncommitted(self, branch: str) -> list[str]:
        """The paths that a branch holds uncommitted."""
        return [found.path for found in self._pages(self._lake.branches_api.diff_branch, branch)]

    def revert(self, branch: str, commit: str) -> None:
        """Commits on a branch what undoes a commit of it."""
        from lakefs_sdk import RevertCreation

        self._call(self._lake.branches_api.revert_branch, branch, RevertCreation(ref=commit, parent_number=1))

    def reset(self, branch: str, path: str) -> None:
        """Throws away what a branch holds uncommitted under a path.

        Raises:
            Refused: 403 on a protected branch, whoever asks.
        """
        from lakefs_sdk import ResetCreation

        with _done_already(404):
            self._call(self._lake.branches_api.reset_branch, branch, ResetCreation(type="object", path=path))

    # -- branch protection -----------------------------------------------------------------------------------------

    def protected(self) -> list[str]:
        """The patterns of protected branches."""
        rules = self._found(self._lake.repositories_api.get_branch_protection_rules)
        return [rule.pattern for rule in rules or []]

    def protect(self, patterns: Sequence[str]) -> None:
        """Sets the patterns of protected branches. Takes effect after some seconds."""
        from lakefs_sdk import BranchProtectionRule

        rules = [BranchProtectionRule(pattern=pattern) for pattern in patterns]
        self._call(self._lake.repositories_api.set_branch_protection_rules, rules)

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
        return str(self._call(self._lake.repositories_api.get_repository).storage_namespace).rstrip("/")

    @property
    def _lake(self) -> LakeFSClient:
        return self._calls.lake

    def _call(self, method: Callable[..., Answer], *args: Any, **named: Any) -> Answer:
        """A call about this repository that may be repeated: see `Calls`."""
        return self._calls.call(method, self.name, *args, **named)

    def _found(self, method: Callable[..., Answer], *args: Any, **named: Any) -> Answer | None:
        """The answer, or None for 404."""
        try:
            return self._call(method, *args, **named)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    def _pages(self, method: Callable[..., Any], *args: Any, amount: int = _PAGE, **named: Any) -> Iterator[Any]:
        """The results of a listing, page by page as they are asked for: `amount` in the first."""
        after = ""
        while (page := self._found(method, *args, after=after, amount=amount, **named)) is not None:
            yield from page.results
            if not page.pagination.has_more:
                return
            after, amount = page.pagination.next_offset, _PAGE


def _stored(ref: str, found: ObjectStats, metadata: Mapping[str, str] | None = None) -> Stored:
    return Stored(
        ref=ref,
        path=found.path,
        address=found.physical_address,
        checksum=found.checksum,
        size=found.size_bytes or 0,
        metadata=dict(found.metadata or metadata or {}),
    )


def _entry(found: Commit) -> LogEntry:
    return LogEntry(id=found.id, at=found.creation_date, metadata=dict(found.metadata or {}))


@contextlib.contextmanager
def _done_already(status: int) -> Iterator[None]:
    """For calls whose repeat is answered with this status."""
    try:
        yield
    except Refused as error:
        if error.status != status:
            raise
