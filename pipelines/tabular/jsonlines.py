"""JSON lines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

import polars as pl

from pipelines.spec import ColumnType, Table
from pipelines.tabular.values import POLARS_TYPES, Read, few_enough, judged, listed, readable, refuse, text_of


def read_jsonl(data: bytes, table: Table, where: str) -> Read:
    """Reads one JSON object a line. A nullable column may be left out of an object; it is null there.

    Strings equal to one of `null_values` are null. Numbers and booleans must be JSON's own, not text.

    Args:
        data: the file, decompressed.
        table: what the file should hold.
        where: for messages: the use case, table and partition.

    Raises:
        InputError: empty, not UTF-8, a line that is not an object, other columns, or more than `max_rows` rows.
    """
    if not data and table.min_rows == 0:
        return pl.DataFrame(schema={name: POLARS_TYPES[column.type] for name, column in table.columns.items()}), ()
    lines = text_of(data, where).removesuffix("\n").split("\n")
    few_enough(len(lines), table, where)
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line, parse_constant=_no_constant, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            refuse(where, f"line {number} is not JSON: {error}", "one JSON object a line")
        if not isinstance(row, dict):
            refuse(where, f"line {number} is {type(row).__name__}, not an object", "one JSON object a line")
        if extra := row.keys() - table.columns.keys():
            refuse(
                where,
                f"line {number} has columns that the spec does not have: {listed(sorted(extra))}",
                listed(table.columns),
            )
        rows.append(row)
    present = set().union(*rows)
    if missing := [name for name in table.columns if name not in present]:
        refuse(where, f"columns missing: {listed(missing)}", listed(table.columns))
    for number, row in enumerate(rows, start=1):
        for name, column in table.columns.items():
            if name not in row and not column.nullable:
                refuse(where, f"line {number} leaves out {name!r}, which is not nullable", listed(table.columns))
    nulls = frozenset(table.null_values)
    shown, good = {}, {}
    for name, column in table.columns.items():
        values = [row.get(name) for row in rows]
        values = [None if isinstance(value, str) and value in nulls else value for value in values]
        fits = _FITS[column.type]
        # What the file has, as text, to tell what was lost from what was null to begin with.
        shown[name] = [value if value is None or _is_text(value) else json.dumps(value) for value in values]
        dtype = pl.String() if fits is _is_text else POLARS_TYPES[column.type]
        good[name] = pl.Series(name, [value if value is not None and fits(value) else None for value in values], dtype)
    read = pl.DataFrame(good).with_columns(
        readable(name, column.type) for name, column in table.columns.items() if column.type in ("timestamp", "date")
    )
    return read, judged(pl.DataFrame(shown, schema=dict.fromkeys(shown, pl.String)), read, table)


def _is_text(value: Any) -> bool:
    # JSON can spell half of a surrogate pair, which no UTF-8 can hold.
    return isinstance(value, str) and not any("\ud800" <= mark <= "\udfff" for mark in value)


def _is_finite(value: Any) -> bool:
    try:
        return type(value) in (int, float) and math.isfinite(value)
    except OverflowError:
        return False


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a key is given twice")
    return made


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_FITS: dict[ColumnType, Callable[[Any], bool]] = {
    "string": _is_text,
    "timestamp": _is_text,
    "date": _is_text,
    "int": lambda value: type(value) is int and -(2**63) <= value < 2**63,
    "float": _is_finite,
    "bool": lambda value: type(value) is bool,
}
