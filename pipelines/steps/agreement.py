"""Whether a snapshot, the spec and a model agree about the columns that are scored: said before any row is read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import polars as pl

from pipelines.errors import SchemaMismatch, explain

if TYPE_CHECKING:
    from pipelines.spec import ColumnType, UseCase

_TEXT = (pl.String, pl.Categorical, pl.Enum)
#: What a snapshot may hold where the spec says this: as the readers make it, or narrower.
_FITS: dict[ColumnType, Callable[[pl.DataType], bool]] = {
    "string": lambda dtype: isinstance(dtype, _TEXT),
    "int": lambda dtype: dtype.is_integer(),
    "float": lambda dtype: dtype.is_numeric(),
    "bool": lambda dtype: dtype == pl.Boolean(),
    "timestamp": lambda dtype: isinstance(dtype, pl.Datetime),
    "date": lambda dtype: dtype == pl.Date(),
}


def check_rows(spec: UseCase, held: pl.Schema) -> None:
    """Passes when the rows of a snapshot have the columns that features are made of, in the types that the spec says.

    Columns that the spec does not name are no concern of the model's: they are not read.

    Args:
        held: the columns of the snapshot.

    Raises:
        SchemaMismatch: one is missing, or is of another type.
    """
    made_of = spec.rows.columns if spec.features.function is not None else (*spec.rows.key, *spec.features.columns)
    for name in made_of:
        declared = spec.rows.columns[name].type
        dtype = held.get(name)
        if dtype is None or not (dtype == pl.Null() or _FITS[declared](dtype)):
            found = f"there is no {name!r}" if dtype is None else f"{name!r} is {dtype}"
            raise SchemaMismatch(
                explain(
                    f"{spec.name}/rows",
                    f"the spec and the snapshot disagree: {found}",
                    allowed=f"{name}: {declared}",
                    remedy="publish the partition with this column, or correct the spec and retrain",
                )
            )


def check_model(spec: UseCase, numeric: Sequence[str], categorical: Sequence[str]) -> None:
    """Passes when the model has learned from every feature that the spec names.

    A feature that the model wants and the spec does not name, or names as the other kind, is found by the engine.

    Args:
        numeric: the model's, and so `categorical`.

    Raises:
        SchemaMismatch: the spec names one that the model does not know.
    """
    known = {*numeric, *categorical}
    if extra := [name for name in spec.features.columns if name not in known]:
        raise SchemaMismatch(
            explain(
                f"{spec.name}: features",
                f"the model does not know {', '.join(map(repr, extra))}",
                allowed=", ".join(sorted(known)),
                remedy="train and promote a model on these features; until then take them out of the spec",
            )
        )
