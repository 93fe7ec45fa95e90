"""Rows as CSV, one way for files and for PostgreSQL's COPY: nothing is lost that the types can hold.

Floats have as many digits as it takes to read the same number again; instants are ISO 8601 in UTC; a null is nothing,
an empty string `""`; what is nested is JSON. Text is as it is: see `pipelines.spec.delivery` about spreadsheets.
"""

from __future__ import annotations

import json

import polars as pl

_INSTANT, _TIME = "%Y-%m-%dT%H:%M:%S%.6f", "%H:%M:%S%.6f"


def is_nested(dtype: pl.DataType) -> bool:
    """Whether values of a type become JSON."""
    return dtype.is_nested()


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows with what CSV has no form for as text."""
    columns: list[pl.Expr | pl.Series] = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if is_nested(dtype):
            texts = [None if value is None else json.dumps(value, default=str) for value in frame.get_column(name)]
            columns.append(pl.Series(name, texts, dtype=pl.String))
        elif isinstance(dtype, pl.Datetime):
            zone = "" if dtype.time_zone is None else "Z"
            column = column if dtype.time_zone is None else column.dt.convert_time_zone("UTC")
            columns.append(column.dt.strftime(_INSTANT + zone))
        elif dtype == pl.Time:
            columns.append(column.dt.strftime(_TIME))
        elif isinstance(dtype, pl.Enum | pl.Categorical):
            columns.append(column.cast(pl.String))
        else:
            columns.append(column)
    return frame.with_columns(columns)
