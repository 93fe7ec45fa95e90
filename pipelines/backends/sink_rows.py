"""Rows as CSV, one way for files and for PostgreSQL's COPY: nothing is lost that the types can hold.

Floats have as many digits as it takes to read the same number again; instants are ISO 8601 in UTC; a null is nothing,
an empty string `""`; what is nested is JSON (numbers that
it has not, NaN and infinities, are null there). Text is as it is: see `pipelines.spec.delivery` about spreadsheets.
"""

from __future__ import annotations

import json
import math
from typing import Any

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
            values = frame.get_column(name).to_list()
            texts = [None if value is None else json.dumps(_plain(value), allow_nan=False) for value in values]
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


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
