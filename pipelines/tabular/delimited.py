"""CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

import polars as pl

from pipelines.spec import Table
from pipelines.tabular.values import Read, few_enough, judged, listed, readable, refuse, same_columns, text_of

_DELIMITERS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar", ":": "a colon", " ": "a space"}


def read_csv(data: bytes, table: Table, where: str) -> Read:
    """Reads delimited text with a header. Columns may come in any order; the frame has the spec's.

    Fields equal to one of `null_values`, quoted or not, are null. Rows are counted from 1 below the header.

    Args:
        data: the file, decompressed.
        table: what the file should hold.
        where: for messages: the use case, table and partition.

    Raises:
        InputError: empty, not UTF-8, other columns, a row of another length, or more than `max_rows` rows.
    """
    text = text_of(data, where)
    if "\n" not in text and "\r" in text:
        refuse(where, "lines end in CR alone", "lines that end in LF or CRLF")
    try:
        header = next(csv.reader(io.StringIO(text, newline=""), delimiter=table.delimiter, strict=True), [])
    except csv.Error as error:
        refuse(where, f"the header cannot be read: {error}", listed(table.columns))
    _same_delimiter(text, table, where)
    same_columns(header, table, where)
    _same_width(text, len(header), table, where)
    try:
        frame = pl.read_csv(
            data,
            separator=table.delimiter,
            infer_schema=False,
            empty_string_is_null=False,
            quote_char='"' if '"' in text else None,
        )
    except pl.exceptions.PolarsError as error:
        refuse(where, f"not readable as CSV: {str(error).splitlines()[0]}", "CSV with quotes as in RFC 4180")
    few_enough(frame.height, table, where)
    nulls = list(table.null_values)
    text_frame = frame.select(pl.when(~pl.col(name).is_in(nulls)).then(pl.col(name)) for name in table.columns)
    read = text_frame.select(readable(name, column.type) for name, column in table.columns.items())
    return read, judged(text_frame, read, table)


def _same_delimiter(text: str, table: Table, where: str) -> None:
    """Names the delimiter that the header was written with, when it is not the spec's."""
    header = text.split("\n", 1)[0].removesuffix("\r")
    for mark, called in _DELIMITERS.items():
        named = {name.strip('"') for name in header.split(mark)}
        if len(table.columns) > 1 and mark != table.delimiter and named >= set(table.columns):
            wanted = (
                f"{_DELIMITERS.get(table.delimiter, 'the mark')} ({table.delimiter!r}), as the spec's delimiter says"
            )
            what = f"the delimiter is {called} ({mark!r}), so that columns are missing: {listed(table.columns)}"
            refuse(where, what, wanted)


def _same_width(text: str, width: int, table: Table, where: str) -> None:
    """Every row has as many fields as the header. Polars refuses long rows, but fills short ones with nulls."""
    if '"' in text:
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=table.delimiter, strict=True)
        # To csv an empty line is a row of no fields; it has one, which is empty.
        widths: Iterable[int] = (max(len(row), 1) for row in rows)
    else:
        lines = text.removesuffix("\n").split("\n")
        widths = (line.count(table.delimiter) + 1 for line in lines)
        if text.count(table.delimiter) == len(lines) * (width - 1):
            widths = ()  # a short row would need a long one to hide behind, and long ones are refused
    try:
        for number, found in enumerate(widths):
            few_enough(number, table, where)
            if found != width:
                refuse(where, f"row {number} has {found} fields", f"{width} fields, as in the header")
    except csv.Error as error:
        refuse(where, f"not readable as CSV: {error}", "CSV with quotes as in RFC 4180")
