"""Where `FileSink` puts files: a folder on a disk, or a prefix in an S3 bucket. A file appears whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Protocol

from pipelines.backends.delta_files import unavailable
from pipelines.backends.delta_s3 import S3Files
from pipelines.errors import UnavailableError, explain

_LOCK = ".overnight.lock"
#: Seconds that somebody else's delivery of the same partition is waited for.
_PATIENCE = 300.0


class Place(Protocol):
    """The files of one partition.

    Raises, from any method:
        UnavailableError: the disk is full or fails, or the server does not answer in bounded time.
    """

    @property
    def uri(self) -> str:
        """How people name it."""
        ...

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Keeps others of this machine out, where that can be done."""
        ...

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        """A path on this machine for a file that `take` brings in; what is left of it is deleted."""
        ...

    def take(self, scratch: Path, name: str) -> None:
        """Brings a scratch file in, in the place of what had this name."""
        ...

    def read(self, name: str) -> tuple[bytes, str] | None:
        """A small file with the tag that `swap` compares, or None."""
        ...

    def swap(self, name: str, data: bytes, tag: str | None) -> bool:
        """Writes a small file in the place of the one with this tag (None: of none); False when another is there."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Writes a small file, in the place of what was there."""
        ...

    def sizes(self) -> dict[str, int]:
        """Bytes by name of everything that is there."""
        ...

    def delete(self, name: str) -> None:
        """Deletes a file; nothing happens when there is none."""
        ...


class DiskPlace:
    """A folder. What is written is renamed into it; of several processes on this machine one writes at a time."""

    def __init__(self, root: Path, folder: str) -> None:
        """Makes nothing.

        Args:
            root: it must be there: what is not mounted is not made.
        """
        self._root, self._folder = root, root / folder

    @property
    def uri(self) -> str:  # noqa: D102
        return str(self._folder)

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:  # noqa: D102
        if not self._root.is_dir():
            remedy = "make the folder, or mount it"
            raise UnavailableError(explain(str(self._root), "there is no such folder", remedy=remedy))
        with contextlib.ExitStack() as stack:
            with self._answering():
                self._folder.mkdir(parents=True, exist_ok=True)
                lock = stack.enter_context((self._folder / _LOCK).open("wb"))
                self._wait(lock)
                for path in self._folder.glob(".*.tmp"):  # of processes that died: nobody else is here
                    path.unlink(missing_ok=True)
            yield

    def _wait(self, lock: IO[bytes]) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    what = f"somebody else has been delivering here for {_PATIENCE:.0f} seconds"
                    raise UnavailableError(explain(self.uri, what)) from None
                time.sleep(0.05)
            else:
                return

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:  # noqa: D102
        path = self._folder / f".{secrets.token_hex(6)}.tmp"
        with self._answering():
            try:
                yield path
            finally:
                path.unlink(missing_ok=True)

    def take(self, scratch: Path, name: str) -> None:  # noqa: D102
        with self._answering():
            scratch.replace(self._folder / name)

    def read(self, name: str) -> tuple[bytes, str] | None:  # noqa: D102
        with self._answering():
            try:
                data = (self._folder / name).read_bytes()
            except FileNotFoundError:
                return None
        return data, hashlib.sha256(data).hexdigest()

    def swap(self, name: str, data: bytes, tag: str | None) -> bool:  # noqa: D102
        there = self.read(name)
        if (None if there is None else there[1]) != tag:
            return False
        self.write(name, data)
        return True

    def write(self, name: str, data: bytes) -> None:  # noqa: D102
        with self._answering(), self.scratch() as scratch:
            scratch.write_bytes(data)
            scratch.replace(self._folder / name)

    def sizes(self) -> dict[str, int]:  # noqa: D102
        with self._answering():
            return {path.name: path.stat().st_size for path in self._folder.iterdir() if path.is_file()}

    def delete(self, name: str) -> None:  # noqa: D102
        with self._answering():
            (self._folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def _answering(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise unavailable(self.uri, error) from error


class BucketPlace:
    """A prefix in S3. Nobody is kept out: of two that write a manifest at once, the server takes one."""

    def __init__(self, root: str, folder: str, cache: Path) -> None:
        """Connects to nothing.

        Args:
            root: `s3://bucket/prefix`. Credentials, region and endpoint are boto3's.
            cache: a folder of this machine for what is about to be uploaded.
        """
        self._files = S3Files(f"{root.rstrip('/')}/{folder}", cache)

    @property
    def uri(self) -> str:  # noqa: D102
        return self._files.uri("").rstrip("/")

    def alone(self) -> contextlib.AbstractContextManager[None]:  # noqa: D102
        return contextlib.nullcontext()

    def scratch(self) -> contextlib.AbstractContextManager[Path]:  # noqa: D102
        return self._files.scratch()

    def take(self, scratch: Path, name: str) -> None:  # noqa: D102
        self._files.put(scratch, name)

    def read(self, name: str) -> tuple[bytes, str] | None:  # noqa: D102
        return self._files.tagged(name)

    def swap(self, name: str, data: bytes, tag: str | None) -> bool:  # noqa: D102
        return self._files.swap(name, data, tag)

    def write(self, name: str, data: bytes) -> None:  # noqa: D102
        self._files.write(name, data)

    def sizes(self) -> dict[str, int]:  # noqa: D102
        return {found.path: found.bytes for found in self._files.below("")}

    def delete(self, name: str) -> None:  # noqa: D102
        self._files.delete(name)
