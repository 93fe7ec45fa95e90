"""Names and paths. Names become folders, so only these characters pass."""

from __future__ import annotations

import re

from pipelines.errors import NotFoundError, explain

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DATA = re.compile(r"[^/]+/partition=[^/]+/[0-9a-f]{64}\.parquet")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,47}")


#: Where partitions lie apart until they are published, beside the tables.
STAGING = "_staging"


def data_path(partition: str, digest: str) -> str:
    """Where a published partition lies, below its table's folder."""
    return f"partition={checked_key(partition, 'partition')}/{checked_digest(digest, 'digest')}.parquet"


def is_data(path: str) -> bool:
    """Whether a path is such a one, below the use case's folder. A stranger's files have other names."""
    return _DATA.fullmatch(path) is not None


def staged_path(table: str, partition: str, digest: str) -> str:
    """Where a staged partition lies, below the use case's folder."""
    folder = f"{STAGING}/{checked_table(table)}/{checked_key(partition, 'partition')}"
    return f"{folder}/{checked_digest(digest, 'digest')}.parquet"


def checked_key(value: str, what: str) -> str:
    """The name of a partition, a pin or a tombstone.

    Raises:
        NotFoundError: it is not a name.
    """
    return _checked(_KEY, value, what)


def checked_digest(value: str, what: str) -> str:
    """A SHA-256 in hexadecimal.

    Raises:
        NotFoundError: it is none.
    """
    return _checked(_DIGEST, value, what)


def checked_table(value: str, what: str = "table") -> str:
    """The name of a table or a use case.

    Raises:
        NotFoundError: it is not a name.
    """
    return _checked(_TABLE, value, what)


def _checked(pattern: re.Pattern[str], value: str, what: str) -> str:
    if not pattern.fullmatch(value):
        raise NotFoundError(explain(what, f"{value!r} is not a name", allowed=f"the pattern {pattern.pattern}"))
    return value
