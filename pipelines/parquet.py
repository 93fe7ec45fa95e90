"""One way to write a partition's Parquet file, whichever store keeps it: the same frame gives the same bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def write(frame: pl.DataFrame, path: Path) -> str:
    """Writes a frame as one Parquet file.

    Returns:
        SHA-256 (hex) of the file. Equal frames give equal files on one version of Polars.
    """
    frame.write_parquet(path, compression="zstd", statistics=True)
    return sha256(path)


def sha256(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
