"""One way to write a partition's Parquet file, whichever store keeps it, and to name it by its bytes."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl
    from blake3 import blake3


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
