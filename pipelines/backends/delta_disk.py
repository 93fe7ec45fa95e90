"""`FileStore` on a local disk: hard links and atomic renames. Nothing is synced: this survives a killed process."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.backends.delta_files import Seen, Stored, gone, other_bytes, unavailable
from pipelines.parquet import sha256


class LocalFiles:
    """The files below one folder."""

    delta_options: dict[str, str] | None = None
    polars_options: dict[str, Any] | None = None

    def __init__(self, root: Path) -> None:
        """Makes nothing; folders are made on the first write."""
        self._root = root

    def uri(self, path: str) -> str:  # noqa: D102
        return str(self._root / path)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:  # noqa: D102
        folder = self._root / "_staging"
        with _answering(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
        with _temporary(folder / "scratch") as path:
            yield path

    def take(self, scratch: Path, path: str, digest: str) -> None:  # noqa: ARG002, D102
        with self._writing(path) as target:
            scratch.replace(target)

    def put(self, source: Path, path: str) -> None:  # noqa: D102
        with self._writing(path) as target, _temporary(target) as temporary:
            shutil.copyfile(source, temporary)
            temporary.replace(target)

    def copy(self, source: str, target: str, tag: str) -> bool:  # noqa: ARG002, D102
        with self._writing(target) as path, _temporary(path) as temporary:
            try:
                os.link(self._root / source, temporary)
            except FileNotFoundError:
                return False
            except OSError:  # a disk that knows no hard links
                shutil.copyfile(self._root / source, temporary)
            # When both are one inode the rename does nothing, and the link that is deleted then still renews the
            # file's change time: to `sweep` it is young again.
            temporary.replace(path)
        return True

    def see(self, path: str) -> Seen:  # noqa: D102
        with self._reading(path) as file:
            return Seen(sha256=sha256(file), tag="")

    def local(self, path: str, digest: str) -> Path:  # noqa: D102
        if self.see(path).sha256 != digest:
            raise other_bytes(self.uri(path))
        return self._root / path

    def forget(self, digest: str) -> None:  # noqa: D102
        pass

    def find(self, path: str) -> Stored | None:  # noqa: D102
        with _answering(self.uri(path)), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self._stored(self._root / path)
        return None

    def read(self, path: str) -> bytes:  # noqa: D102
        with self._reading(path) as file:
            return file.read_bytes()

    def write(self, path: str, data: bytes, *, new: bool = False) -> bool:  # noqa: D102
        with self._writing(path) as target, _temporary(target) as temporary:
            temporary.write_bytes(data)
            if not new:
                temporary.replace(target)
                return True
            try:
                os.link(temporary, target)
            except FileExistsError:
                return False
        return True

    def delete(self, path: str) -> None:  # noqa: D102
        with _answering(self.uri(path)):
            (self._root / path).unlink(missing_ok=True)

    def below(self, folder: str) -> Iterator[Stored]:  # noqa: D102
        with _answering(self.uri(folder)):
            for path in (self._root / folder).rglob("*"):
                with contextlib.suppress(FileNotFoundError):  # it went while we looked
                    if path.is_file() and not _is_temporary(path):
                        yield self._stored(path)

    def folders(self) -> list[str]:  # noqa: D102
        with _answering(str(self._root)):
            return sorted(path.name for path in self._root.glob("*") if path.is_dir())

    def sweep(self, before: datetime, *, dry_run: bool) -> list[str]:  # noqa: D102
        swept = []
        with _answering(str(self._root)):
            for path in sorted(self._root.rglob("*")):
                with contextlib.suppress(FileNotFoundError):
                    if path.is_file() and _is_temporary(path) and self._stored(path).modified < before:
                        swept.append(str(path))
                        if not dry_run:
                            path.unlink()
        return swept

    def _stored(self, path: Path) -> Stored:
        found = path.stat()
        # A hard link keeps the time of writing but renews the change time: that is when it came to lie here.
        modified = datetime.fromtimestamp(max(found.st_mtime, found.st_ctime), UTC)
        return Stored(path=path.relative_to(self._root).as_posix(), bytes=found.st_size, modified=modified)

    @contextlib.contextmanager
    def _writing(self, path: str) -> Iterator[Path]:
        target = self._root / path
        with _answering(str(target)):
            target.parent.mkdir(parents=True, exist_ok=True)
            yield target

    @contextlib.contextmanager
    def _reading(self, path: str) -> Iterator[Path]:
        with _answering(self.uri(path)):
            try:
                yield self._root / path
            except (FileNotFoundError, NotADirectoryError):
                raise gone(self.uri(path)) from None


@contextlib.contextmanager
def _answering(where: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise unavailable(where, error) from error


@contextlib.contextmanager
def _temporary(target: Path) -> Iterator[Path]:
    """A name beside `target` that nobody else uses; deleted at the end if it is still there."""
    path = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _is_temporary(path: Path) -> bool:
    """Ours end in .tmp; delta-rs writes `<name>.tmp` and, below it, object_store `<name>#<number>`."""
    return path.suffix == ".tmp" or "#" in path.name
