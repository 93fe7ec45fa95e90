"""A byte scan: does any file below a folder hold a value, whatever the file is packed in?"""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import polars as pl


def holding(root: Path, value: str, *, but: tuple[str, ...] = ()) -> list[str]:
    """The files that hold a value anywhere, as bytes or decoded, relative to the root.

    Args:
        but: folders right below the root that are left out.
    """
    found = []
    for path in sorted(root.rglob("*")):
        relative = path.relative_to(root)
        if path.is_file() and relative.parts[0] not in but and _holds(path.read_bytes(), value):
            found.append(str(relative))
    return found


def _holds(data: bytes, value: str) -> bool:
    if data[:2] == b"\x1f\x8b":
        member = zlib.decompressobj(wbits=31)
        try:
            data = member.decompress(data)
        except zlib.error:
            return False
    if data[:4] == b"PAR1":
        frame = pl.read_parquet(io.BytesIO(data))
        # A file's statistics would show it as well: those are plain bytes.
        return value.encode() in data or any(
            frame.get_column(name).cast(pl.String).str.contains(value, literal=True).any() for name in frame.columns
        )
    return any(value.encode(encoding) in data for encoding in ("utf-8", "utf-16-le", "utf-16-be"))
