"""Feature functions: one module a use case, with one function `build` for training and scoring alike.

A feature function is pure Polars. It keeps every input column and the order of the rows, adds the features, and gives
for a partition alone the very values that it gives for that partition within a range.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    import polars as pl


class Build(Protocol):
    """What every module in this package offers as `build`."""

    def __call__(
        self, rows: pl.LazyFrame, context: Mapping[str, pl.LazyFrame], *, event_time: str, lead: timedelta
    ) -> pl.LazyFrame:
        """Adds the features to the rows.

        Args:
            rows: the table that is scored; one row in, one row out, in the same order, with every column kept.
            context: the tables that the spec's `features.context` names, of these partitions and the lookback.
            event_time: the column of the rows that says when the predicted event is due.
            lead: a prediction is made this long before that; nothing newer may enter a feature.
        """
        ...


def load(name: str) -> Build:
    """The function `build` of a module in this package.

    Raises:
        LookupError: there is no such module, or it has no function `build`; the message lists those that exist.
    """
    known = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name not in known:
        raise LookupError(f"features: there is no module {name!r} in pipelines/features. Allowed: {', '.join(known)}.")
    found = getattr(importlib.import_module(f"{__name__}.{name}"), "build", None)
    if not callable(found):
        raise LookupError(f"features: pipelines/features/{name}.py has no function 'build'. Remedy: define it.")
    return cast("Build", found)
