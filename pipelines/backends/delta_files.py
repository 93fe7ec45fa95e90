"""Whole files under one root, on a disk or in an object store: the one seam between `DeltaStore` and where bytes lie.

A file is there whole or not at all, whatever a dying process left. Paths are relative to the root, with `/`.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pipelines.errors import IntegrityError, NotFoundError, OvernightError, UnavailableError, explain

_REFUSED = ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "necessary privileges")
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True, slots=True)
class Stored:
    """A file that is there."""

    path: str
    bytes: int
    modified: datetime
    """When it came to lie there (UTC), to the second in an object store."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """A file's bytes as they were read."""

    sha256: str
    tag: str
    """What tells these bytes from later ones under the same path; empty on a disk."""


class FileStore(Protocol):
    """What `DeltaStore` does with files.

    Raises, from any method:
        UnavailableError: the disk is full or fails, or the server does not answer in bounded time.
    """

    @property
    def delta_options(self) -> dict[str, str] | None:
        """What delta-rs needs to know to open a table here."""
        ...

    @property
    def polars_options(self) -> dict[str, Any] | None:
        """What Polars needs to know to scan a file here."""
        ...

    def uri(self, path: str) -> str:
        """How people, delta-rs and Polars name a path."""
        ...

    def scratch(self) -> AbstractContextManager[Path]:
        """A path on this machine for a file that `take` then brings in; what is left of it is deleted."""
        ...

    def take(self, scratch: Path, path: str, digest: str) -> None:
        """Brings a scratch file in, in the place of what was there."""
        ...

    def put(self, source: Path, path: str) -> None:
        """Copies a file of this machine in, in the place of what was there."""
        ...

    def copy(self, source: str, target: str, tag: str) -> bool:
        """Copies or links a file in the place of what was at `target`; False when the source is gone.

        Raises:
            IntegrityError: the source is not what it was when it was seen with this tag.
        """
        ...

    def see(self, path: str) -> Seen:
        """Reads a file through, in pieces.

        Raises:
            NotFoundError: there is none.
        """
        ...

    def local(self, path: str, digest: str) -> Path:
        """The file on this machine, with exactly these bytes. Not to be written to.

        Raises:
            NotFoundError: there is none. IntegrityError: its bytes are others.
        """
        ...

    def forget(self, digest: str) -> None:
        """Deletes this machine's copy of a file that lies elsewhere, if there is one."""
        ...

    def find(self, path: str) -> Stored | None:
        """A file, or None when there is none."""
        ...

    def read(self, path: str) -> bytes:
        """A small file.

        Raises:
            NotFoundError: there is none.
        """
        ...

    def write(self, path: str, data: bytes, *, new: bool = False) -> bool:
        """Writes a small file, in the place of what was there.

        Args:
            new: only when nothing is there. Of many writers at once one wins.

        Returns:
            False when `new` and something is there.
        """
        ...

    def delete(self, path: str) -> None:
        """Deletes a file; nothing happens when there is none."""
        ...

    def below(self, folder: str) -> Iterator[Stored]:
        """Every file below a folder, temporary ones left out, in no order."""
        ...

    def folders(self) -> list[str]:
        """The names of the folders right below the root, sorted."""
        ...

    def sweep(self, before: datetime, *, dry_run: bool) -> list[str]:
        """Removes what dead processes left that `below` does not show: temporary files, uploads, local copies."""
        ...


def open_files(root: str | Path, folder: str, cache: Path) -> FileStore:
    """The files of `<root>/<folder>`, with the kind of store that the root names.

    Args:
        root: a folder, or `s3://bucket/prefix`.
        cache: where copies of files that lie elsewhere go.
    """
    if str(root).startswith("s3://"):
        from pipelines.backends.delta_s3 import S3Files

        return S3Files(f"{str(root).rstrip('/')}/{folder}", cache)
    from pipelines.backends.delta_disk import LocalFiles

    return LocalFiles(Path(root) / folder)


def other_bytes(where: str) -> IntegrityError:
    """The error for a file whose digest is not the recorded one."""
    return IntegrityError(explain(where, "the file's bytes are not what was staged", remedy="land it again"))


def gone(where: str) -> NotFoundError:
    """The error for a file that should be there."""
    return NotFoundError(explain(where, "the file is gone", remedy="land it again"))


def is_full(error: BaseException) -> bool:
    """Whether a disk was full, in the words of Python, Polars or delta-rs."""
    return getattr(error, "errno", None) == errno.ENOSPC or f"os error {errno.ENOSPC}" in str(error)


def unavailable(where: str, error: BaseException) -> OvernightError:
    """The error for a disk or a server that failed; it says so when the disk is full.

    A bucket that does not exist is the one failure that another try cannot help.
    """
    if is_full(error):
        return UnavailableError(explain(where, "the disk is full (ENOSPC)", remedy="free some space and run it again"))
    text = " ".join(_COLOURS.sub("", str(error)).split())
    if "NoSuchBucket" in text:
        return NotFoundError(explain(where, "there is no such bucket", remedy="make it first"))
    if any(code in text for code in _REFUSED):
        remedy = "check the AWS_ credentials and what they may do in this bucket"
        return UnavailableError(explain(where, f"the server refused: {text[:200]}", remedy=remedy))
    return UnavailableError(explain(where, f"the storage did not answer as it should: {text[:400]}"))
