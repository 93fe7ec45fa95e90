"""Writes a partition's file as its source would have sent it."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import polars as pl

from pipelines.spec import Table

_TIMESTAMP = "%Y-%m-%dT%H:%M:%S%.6fZ"


def write(root: Path, table: Table, partition: str, frame: pl.DataFrame) -> Path:
    """Writes a frame in its table's format; what `tabular` reads of it is the frame again.

    Args:
        root: of the landing zone.
        frame: the table's columns.
    """
    path = root / table.path.replace("{partition}", partition)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    if table.format == "parquet":
        frame.write_parquet(content)
    elif table.format == "csv":
        null = table.null_values[0] if table.null_values else ""
        frame.write_csv(content, separator=table.delimiter, null_value=null, datetime_format=_TIMESTAMP)
    else:
        times = [pl.col(name).dt.strftime(_TIMESTAMP) for name, kind in frame.schema.items() if kind == pl.Datetime]
        frame.with_columns(times).write_ndjson(content)
    data = content.getvalue()
    if table.path.endswith(".gz") and table.format != "parquet":
        data = gzip.compress(data, compresslevel=6, mtime=0)
    path.write_bytes(data)
    return path
