"""Parquet."""

from __future__ import annotations

import io

import polars as pl
import pyarrow
import pyarrow.parquet

from pipelines.spec import ColumnType, Table
from pipelines.tabular.values import POLARS_TYPES, Read, few_enough, judged, listed, refuse, same_columns

#: Parquet types that a column type holds without loss.
_LOSSLESS: dict[ColumnType, tuple[type[pl.DataType], ...]] = {
    "string": (pl.String, pl.Categorical, pl.Enum),
    "int": (pl.Int64, pl.Int32, pl.Int16, pl.Int8, pl.UInt32, pl.UInt16, pl.UInt8),
    "float": (pl.Float64, pl.Float32),
    "bool": (pl.Boolean,),
    "timestamp": (pl.Datetime,),
    "date": (pl.Date,),
}


def read_parquet(data: bytes, table: Table, where: str) -> Read:
    """Reads a Parquet file whose types hold the spec's without loss; narrower integers and floats are widened.

    Instants finer than a microsecond are cut; infinite and NaN floats are not readable.

    Args:
        data: the file.
        table: what the file should hold.
        where: for messages: the use case, table and partition.

    Raises:
        InputError: not Parquet, other columns, a column of another type, a timestamp without a zone, or over a cap.
    """
    try:
        # The footer is judged before a page is touched.
        meta = pyarrow.parquet.ParquetFile(io.BytesIO(data)).metadata
        few_enough(meta.num_rows, table, where)
        size = sum(meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))
        if size > table.max_bytes:
            refuse(where, f"{size} bytes when decompressed", f"max_bytes: {table.max_bytes}")
        if len(names := meta.schema.to_arrow_schema().names) != len(set(names)):
            refuse(where, "a column is there twice", listed(table.columns))
        frame = pl.read_parquet(io.BytesIO(data))
    except (pyarrow.ArrowException, OSError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        refuse(where, f"not readable as Parquet: {str(error).splitlines()[0]}", "a whole Parquet file")
    same_columns(frame.columns, table, where)
    casts = []
    for name, column in table.columns.items():
        found = frame.schema[name]
        if not isinstance(found, _LOSSLESS[column.type]):
            refuse(where, f"column {name!r} has type {found}", f"type {column.type}: {POLARS_TYPES[column.type]}")
        if isinstance(found, pl.Datetime) and found.time_zone is None:
            refuse(where, f"column {name!r} holds timestamps without a time zone", "timestamps with a time zone (UTC)")
        read = pl.col(name)
        if column.type == "timestamp":
            read = read.dt.convert_time_zone("UTC")
        if column.type == "float":
            read = pl.when(read.is_finite()).then(read)
        casts.append(read.cast(POLARS_TYPES[column.type]))
    read_frame = frame.select(casts)
    return read_frame, judged(frame, read_frame, table)
