"""One way to write a partition's Parquet file, whichever store keeps it, and to name it by its bytes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from pipelines.errors import UnavailableError, explain

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    from blake3 import blake3

    from pipelines.ports import Draft

#: Rows of a row group of what `Writer` writes.
GROUP_ROWS = 131_072
#: Footers from which on several are read at once, and how many.
_FEW, _AT_ONCE = 8, 16


def write(frame: pl.DataFrame, path: Path) -> str:
    """Writes a frame as one Parquet file.

    Returns:
        BLAKE3 (hex) of the file. Equal frames give equal files on one version of Polars.

    Raises:
        OSError: the disk is full, or cannot be written to.
    """
    from polars.exceptions import PolarsError

    # Snappy: every reader of Parquet has it, and it decodes several times faster than zstd (ADR 0009).
    try:
        frame.write_parquet(path, compression="snappy", statistics=True)
    except PolarsError as error:
        # A footer that finds no room is "out of specification" to Polars.
        if not _room(path.parent):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
        raise
    return digest(path)


def write_draft(draft: Draft, path: Path) -> tuple[str, int]:
    """Writes what is to be staged, whichever way it comes.

    Returns:
        BLAKE3 (hex) of the file, and its rows.

    Raises:
        OSError: the disk is full, or cannot be written to.
    """
    if draft.write is not None:
        rows = draft.write(path)
        return digest(path), rows
    assert draft.frame is not None, "a draft has a frame or writes a file"
    return write(draft.frame, path), draft.frame.height


def unwritable(where: str, error: OSError) -> UnavailableError:
    """The error for a file that could not be written to this machine's disk; it says so when the disk is full."""
    if error.errno == errno.ENOSPC:
        return UnavailableError(explain(where, "the disk is full (ENOSPC)", remedy="free some space and run it again"))
    return UnavailableError(explain(where, f"it could not be written: {error}"))


class Writer:
    """Writes one Parquet file from frames that come one after the other.

    Rows are put into row groups of a fixed size, so the same rows give the same bytes however they were cut.
    """

    def __init__(self, path: Path, schema: pl.Schema, repeated: Collection[str] = ()) -> None:
        """Creates the file.

        Args:
            repeated: columns with few distinct values, which a dictionary makes small. On distinct numbers a
                dictionary is several times slower than none.
        """
        import polars as pl
        import pyarrow.parquet as pq

        self.rows = 0
        """Rows that were written so far."""
        self._path = path
        self._schema = schema
        self._waiting: list[pl.DataFrame] = []
        self._arrow = _table(pl.DataFrame(schema=schema)).schema
        self._file = pq.ParquetWriter(
            path, self._arrow, compression="snappy", use_dictionary=[name for name in repeated if name in schema]
        )

    def write(self, frame: pl.DataFrame) -> None:
        """Appends rows.

        Raises:
            OSError: the disk is full, or cannot be written to.
        """
        import polars as pl

        self._waiting.append(frame)
        self.rows += frame.height
        if sum(each.height for each in self._waiting) < GROUP_ROWS:
            return
        held = pl.concat(self._waiting)
        whole = held.height - held.height % GROUP_ROWS
        for start in range(0, whole, GROUP_ROWS):
            self._group(held.slice(start, GROUP_ROWS))
        self._waiting = [held.slice(whole)] if whole < held.height else []

    def close(self, notes: Mapping[str, str]) -> int:
        """Ends the file.

        Args:
            notes: what its footer says besides, by name; see `notes`.

        Returns:
            How many rows it has.
        """
        import polars as pl

        if self._waiting:
            self._group(pl.concat(self._waiting))
            self._waiting = []
        if notes:
            self._file.add_key_value_metadata(dict(notes))
        self._file.close()
        return self.rows

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Lets go of a file that was not ended; it is not whole."""
        with contextlib.suppress(Exception):
            self._file.close()

    def _group(self, frame: pl.DataFrame) -> None:
        # One array a column: where a column's pieces end, a page may end, and the bytes would show it.
        self._file.write_table(_table(frame).combine_chunks(), row_group_size=GROUP_ROWS)


def _table(frame: pl.DataFrame) -> pa.Table:
    import polars as pl

    return frame.to_arrow(compat_level=pl.CompatLevel.oldest())


def notes(source: Path | str) -> dict[str, str]:
    """What the writer of a Parquet file noted in its footer; the rest of the file is not read."""
    return _footer(source, None)


def noted(files: Mapping[str, str], name: str, options: dict[str, Any] | None) -> dict[str, str]:
    """What was noted under a name in each of some files; no entry for a file without such a note.

    Args:
        files: path or URI by key.
        options: of the object store, as Polars takes them.
    """

    def one(uri: str) -> str | None:
        return _footer(uri, options).get(name)

    if len(files) < _FEW:
        found: Iterator[str | None] = map(one, files.values())
        return {key: text for key, text in zip(files, found, strict=True) if text is not None}
    with ThreadPoolExecutor(_AT_ONCE) as pool:  # most of the time is waiting
        found = pool.map(one, files.values())
        return {key: text for key, text in zip(files, found, strict=True) if text is not None}


def _footer(source: Path | str, options: dict[str, Any] | None) -> dict[str, str]:
    import polars as pl

    told: dict[str, str] = pl.read_parquet_metadata(source, storage_options=options)
    return told


def _room(folder: Path) -> bool:
    """Whether a disk has a block and a file left."""
    disk = os.statvfs(folder)
    return disk.f_bavail > 0 and disk.f_favail > 0


def digest(path: Path) -> str:
    """BLAKE3 (hex) of a file, on as many cores as there are."""
    from blake3 import blake3

    return blake3(max_threads=blake3.AUTO).update_mmap(path).hexdigest()


def digest_of(data: bytes) -> str:
    """BLAKE3 (hex) of bytes in memory."""
    from blake3 import blake3

    return blake3(data, max_threads=blake3.AUTO).hexdigest()


def digester() -> blake3:
    """BLAKE3 of bytes that come one block after the other: `update`, then `hexdigest`."""
    from blake3 import blake3

    return blake3()


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
