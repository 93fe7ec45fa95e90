"""Who is to be erased: one value of one column, typed as its tables have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

import polars as pl

from pipelines.errors import SpecError, explain
from pipelines.spec import Column, ColumnType, UseCase
from pipelines.steps.predictions import PREDICTIONS
from pipelines.tabular.values import readable

#: What names a subject. Numbers that are measured, instants and flags do not: they have many spellings, or two values.
KINDS: tuple[ColumnType, ...] = ("string", "int", "date")


@dataclass(frozen=True, kw_only=True, slots=True, repr=False)
class Subject:
    """One value of one column. It is never printed: its repr is the class's name alone."""

    column: str
    values: Mapping[str, str | int | date]
    """The value as each table has it that has the column."""

    @property
    def text(self) -> str | None:
        """The value when it is text: only then does a text that holds it say something."""
        return next((value for value in self.values.values() if isinstance(value, str)), None)

    @property
    def spellings(self) -> tuple[str, ...]:
        """The value as text."""
        return tuple(dict.fromkeys(str(value) for value in self.values.values()))


def columns_of(spec: UseCase, table: str) -> Mapping[str, Column]:
    """A table's columns that can identify somebody: all that the spec names; of predictions, the key of `rows`."""
    if table == PREDICTIONS:
        return {name: spec.rows.columns[name] for name in spec.rows.key}
    return spec.tables[table].columns


def parse_subject(spec: UseCase, key: str) -> Subject:
    """Reads `column=value`.

    Raises:
        SpecError: not of that form; no such column; a column of a type that names nobody; or a value that is not of
            the column's type. The message does not repeat the value.
    """
    where = f"{spec.name}: erasure"
    column, sign, text = key.partition("=")
    if not sign or not column or not text.strip():
        raise SpecError(explain(where, "the key has not the form column=value", allowed="such as customer_id=1234"))
    kinds = {name: table.columns[column].type for name, table in spec.tables.items() if column in table.columns}
    if not kinds:
        fitting = {
            name: None for table in spec.tables.values() for name, found in table.columns.items() if found.type in KINDS
        }
        raise SpecError(explain(where, f"no table has a column {column!r}", allowed=", ".join(fitting)))
    if not set(kinds.values()) <= set(KINDS):
        bad = ", ".join(sorted(set(kinds.values()) - set(KINDS)))
        raise SpecError(
            explain(
                where,
                f"column {column!r} has type {bad}, which names nobody",
                allowed=f"columns of type {', '.join(KINDS)}",
            )
        )
    read = {kind: _parsed(text, kind) for kind in set(kinds.values())}
    values = {name: value for name, kind in kinds.items() if (value := read[kind]) is not None}
    if not values:
        raise SpecError(
            explain(
                where,
                f"the value is not of column {column!r}'s type",
                allowed=" or ".join(sorted(set(kinds.values()))),
            )
        )
    if column in spec.rows.key:
        values[PREDICTIONS] = values["rows"]
    return Subject(column=column, values=values)


def _parsed(text: str, kind: ColumnType) -> str | int | date | None:
    value: str | int | date | None = pl.DataFrame({"value": [text]}).select(readable("value", kind)).item()
    return value
