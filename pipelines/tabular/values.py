"""What the readers share: text to each column type, and the refusals."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NoReturn

import polars as pl

from pipelines.errors import InputError, explain
from pipelines.records import Check
from pipelines.spec import ColumnType, Table

Read = tuple[pl.DataFrame, tuple[Check, ...]]

#: The frame's type of each column type of a spec.
POLARS_TYPES: dict[ColumnType, pl.DataType] = {
    "string": pl.String(),
    "int": pl.Int64(),
    "float": pl.Float64(),
    "bool": pl.Boolean(),
    "timestamp": pl.Datetime("us", "UTC"),
    "date": pl.Date(),
}
_ALLOWED: dict[ColumnType, str] = {
    "string": "text",
    "int": "whole numbers from -2^63 to 2^63 - 1",
    "float": "finite numbers such as 12.5 or 1e3",
    "bool": "true, false, 1, 0",
    "timestamp": "ISO 8601 with an offset, such as 2013-09-01T05:00:00Z",
    "date": "ISO dates such as 2013-09-01",
}
_TIMESTAMP = r"^\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:[0-5]\d(\.\d{1,9})?(Z|[+-]\d{2}:?\d{2})$"
_DATE = r"^\d{4}-\d{2}-\d{2}$"


def text_of(data: bytes, where: str) -> str:
    """UTF-8 without a byte order mark or NUL, or an InputError that names the first offending byte."""
    remedy = "write the file as UTF-8 without a byte order mark"
    if not data:
        raise InputError(explain(where, "the file is empty (0 bytes)", remedy="have the source send it again"))
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(explain(where, "the file is UTF-16 (byte order mark at offset 0)", remedy=remedy))
    if data[:3] == b"\xef\xbb\xbf":
        raise InputError(explain(where, "the file begins with a byte order mark (offset 0)", remedy=remedy))
    if (offset := data.find(b"\0")) >= 0:
        raise InputError(explain(where, f"there is a NUL byte at offset {offset} (UTF-16?)", remedy=remedy))
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = f"byte 0x{data[error.start]:02X} at offset {error.start}"
        raise InputError(explain(where, f"{byte} is not UTF-8 (Latin-1?)", remedy=remedy)) from None


def same_columns(found: Sequence[str], table: Table, where: str) -> None:
    """Refuses a file that lacks a column, has one more, or names one twice. The order is free."""
    if len(set(found)) != len(found):
        refuse(where, f"a column is named twice: {listed(found)}", listed(table.columns))
    missing = [name for name in table.columns if name not in found]
    extra = [name for name in found if name not in table.columns]
    parts = [f"columns missing: {listed(missing)}"] if missing else []
    parts += [f"columns that the spec does not have: {listed(extra)}"] if extra else []
    if parts:
        refuse(where, "; ".join(parts), listed(table.columns))


def few_enough(rows: int, table: Table, where: str) -> None:
    """Refuses more rows than the table may have."""
    if rows > table.max_rows:
        refuse(where, f"more rows than max_rows ({rows} or more)", f"max_rows: {table.max_rows}")


def readable(name: str, kind: ColumnType) -> pl.Expr:
    """A text column as its type; null where it cannot be read."""
    text = pl.col(name)
    if kind == "string":
        return text
    if kind == "bool":
        words = {"true": True, "false": False, "1": True, "0": False}
        return text.str.to_lowercase().replace_strict(words, default=None, return_dtype=pl.Boolean)
    if kind == "timestamp":
        read = text.str.to_datetime("%+", time_unit="us", time_zone="UTC", strict=False)
        return pl.when(text.str.contains(_TIMESTAMP)).then(read)
    if kind == "date":
        return pl.when(text.str.contains(_DATE)).then(text.str.to_date("%Y-%m-%d", strict=False))
    read = text.cast(POLARS_TYPES[kind], strict=False)
    # Polars reads "inf" and "nan", and makes 1e400 infinite.
    return pl.when(read.is_finite()).then(read) if kind == "float" else read


def judged(raw: pl.DataFrame, read: pl.DataFrame, table: Table) -> tuple[Check, ...]:
    """One failed check for each column with a value in `raw` that is null in `read`.

    Args:
        raw: every column of the table as the file has it.
        read: the same columns and rows, typed.
        table: the columns' types.
    """
    lost = [name for name in table.columns if read[name].null_count() > raw[name].null_count()]
    checks = []
    for name in lost:
        kind = table.columns[name].type
        bad = (raw[name].is_not_null() & read[name].is_null()).arg_true()
        first = str(raw[name][bad[0]])
        shown = first if len(first) <= 60 else first[:60] + "..."
        count = f"{len(bad)} of {raw[name].len() - raw[name].null_count()} values cannot be read as {kind}"
        observed = f"{count}, first at row {bad[0] + 1}: {shown!r}"
        checks.append(
            Check(name=f"readable_as_{kind}", column=name, passed=False, observed=observed, allowed=_ALLOWED[kind])
        )
    return tuple(checks)


def listed(names: Iterable[str]) -> str:
    """At most 40 names, none longer than 60 characters: a header may be anything at all."""
    return ", ".join(name if len(name) <= 60 else name[:60] + "..." for name in islice(names, 40))


def refuse(where: str, what: str, allowed: str) -> NoReturn:
    """Raises the InputError of a file that does not fit its table."""
    raise InputError(
        explain(where, what, allowed=allowed, remedy="have the source send the file again, or change the spec")
    )
