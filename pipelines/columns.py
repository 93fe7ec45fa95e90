"""Which columns a partition may bring to a table: the same rule for every snapshot store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pipelines.errors import SchemaMismatch, explain

if TYPE_CHECKING:
    import polars as pl


def admitted(where: str, published: pl.Schema, offered: pl.Schema, *, wider: bool) -> pl.Schema:
    """A table's columns once a partition is in it.

    Args:
        where: what the error names.
        published: the table's columns, in order.
        offered: the partition's.
        wider: whether the partition may have more, anywhere between those of the table.

    Raises:
        SchemaMismatch: the partition lacks a column of the table, has it with another type or in another order, or
            has one more than it may.
    """
    kept = [(name, dtype) for name, dtype in offered.items() if not wider or name in published]
    if kept != list(published.items()):
        raise SchemaMismatch(
            explain(
                where,
                f"the partition's columns are {_shown(offered)}",
                allowed=f"the published table's: {_shown(published)}" + (", and more beside them" if wider else ""),
                remedy="publish a changed schema under a new table or use case name",
            )
        )
    return offered


def _shown(schema: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in schema.items())
