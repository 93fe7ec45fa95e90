"""Where things are in a use case's lakeFS repository.

    main                                             what is visible, by merges only
      <table>/partition=<key>/part.parquet             one file a partition, always of this name
      <table>/_schema.parquet                          the table's columns: a file of no rows
      _lakefs_actions/, _overnight/                    the gate: see `lakefs_setup`
    run-<created>-<table>-<random>                   one branch a call of `stage`
    overnight-records                                never merged
      quarantine/<table>/<key>/<digest>/               report, original files
      pins/<name>.json, tombstones/<id>.json
      dropped/<branch>.json                            bytes of deleted branches that nothing names any more
    tag pin-<name>                                   what a pin keeps

A name that two runs share is what makes lakeFS see a conflict: it merges by path.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

from pipelines.backends.lakefs_client import Repository, Stored
from pipelines.errors import IntegrityError, NotFoundError, explain
from pipelines.records import PublishedPartition

RECORDS = "overnight-records"
RUN = "run-"
#: Above this many partitions, one page of a listing costs less than asking for each.
_FEW = 16
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,47}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_STAMP = "%Y%m%dT%H%M%S"


def checked_table(table: str, what: str = "table") -> str:
    """A table's or a use case's name.

    Raises:
        NotFoundError: it is not one.
    """
    return _checked(_TABLE, table, what)


def checked_key(key: str, what: str = "partition") -> str:
    """A partition's or a pin's name.

    Raises:
        NotFoundError: it is not one.
    """
    return _checked(_KEY, key, what)


def checked_digest(digest: str) -> str:
    """A digest, in hexadecimal digits.

    Raises:
        NotFoundError: it is not one.
    """
    return _checked(_DIGEST, digest, "digest")


def _checked(pattern: re.Pattern[str], value: str, what: str) -> str:
    """Names become paths, so only these characters pass."""
    if not pattern.fullmatch(value):
        raise NotFoundError(explain(what, f"{value!r} is not a name", allowed=f"the pattern {pattern.pattern}"))
    return value


def repository_name(use_case: str, prefix: str = "") -> str:
    """lakeFS takes lower case letters, digits and dashes, three at least."""
    return (prefix + checked_table(use_case, "use case")).replace("_", "-").ljust(3, "-")


def run_branch(table: str) -> str:
    """A new branch's name. It says when, since a branch without a commit of its own does not."""
    return f"{RUN}{datetime.now(UTC).strftime(_STAMP)}-{table}-{secrets.token_hex(8)}"


def created(branch: str) -> datetime | None:
    """When a branch of `run_branch` was made; None when the name is another's."""
    try:
        return datetime.strptime(branch.removeprefix(RUN).partition("-")[0], _STAMP).replace(tzinfo=UTC)
    except ValueError:
        return None


def folder(table: str) -> str:
    """Below this lie a table's partitions."""
    return f"{checked_table(table)}/partition="


def part_path(table: str, key: str) -> str:
    """The file of a partition."""
    return f"{folder(table)}{checked_key(key)}/part.parquet"


def schema_path(table: str) -> str:
    """The file that says a table's columns."""
    return f"{checked_table(table)}/_schema.parquet"


def digest_of(stored: Stored) -> str:
    """The digest (BLAKE3) that a file was uploaded with.

    Raises:
        IntegrityError: somebody else uploaded it.
    """
    try:
        return stored.metadata["blake3"]
    except KeyError:
        raise IntegrityError(
            explain(stored.path, "this file was not written by a publish", remedy="revert the commit that brought it")
        ) from None


def published(key: str, stored: Stored) -> PublishedPartition:
    """A partition, from its file's metadata."""
    return PublishedPartition(partition=key, digest=digest_of(stored), rows=int(stored.metadata["rows"]))


class Held:
    """The partitions of a table at one commit: asked for one by one while they are few, else listed."""

    def __init__(self, repository: Repository, commit: str, table: str) -> None:
        """Asks nothing yet."""
        self._repository = repository
        self._commit = commit
        self._table = table
        self._asked: dict[str, Stored | None] = {}
        self._all: dict[str, Stored] | None = None

    def get(self, key: str) -> Stored | None:
        """The file of a partition, or None."""
        if self._all is None and key not in self._asked:
            if len(self._asked) >= _FEW:
                return self.all().get(key)
            self._asked[key] = self._repository.stat(self._commit, part_path(self._table, key))
        return self._all.get(key) if self._all is not None else self._asked[key]

    def many(self, keys: Sequence[str]) -> dict[str, Stored | None]:
        """The files of some partitions."""
        if len(keys) > _FEW:
            self.all()
        return {key: self.get(key) for key in keys}

    def all(self) -> Mapping[str, Stored]:
        """Every partition, by key."""
        if self._all is None:
            self._all = dict(_keyed(self._repository.objects(self._commit, folder(self._table)), self._table))
        return self._all


def _keyed(found: Iterable[Stored], table: str) -> Iterator[tuple[str, Stored]]:
    start, end = folder(table), "/part.parquet"
    for stored in sorted(found, key=lambda each: each.path.removeprefix(start).removesuffix(end)):
        if stored.path.endswith(end):
            yield stored.path.removeprefix(start).removesuffix(end), stored
