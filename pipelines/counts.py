"""Counts rows by the bins of a champion's frozen reference, while they are scored; drift is then a matter of adding.

Counts are integers, so those of tiles, shards and partitions add up to the same figures in any order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pipelines.records import ColumnCounts, Counts, NumericReference, Reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Under which name a partition file of predictions keeps its counts.
NOTE = "overnight.counts"


class Counter:
    """Counts of the rows that were added so far."""

    def __init__(self, reference: bytes) -> None:
        """Counts nothing yet.

        Args:
            reference: a champion's reference.json.
        """
        self._digest = hashlib.sha256(reference).hexdigest()
        told = Reference.model_validate_json(reference)
        self._numeric = {name: _edges(column) for name, column in told.numeric.items()}
        self._categories = {name: tuple(column.counts) for name, column in told.categorical.items()}
        self._score_edges = _edges(told.score)
        self._rows = 0
        self._bins: dict[str, NDArray[np.int64]] = {
            **{name: np.zeros(len(edges) + 1, np.int64) for name, edges in self._numeric.items()},
            **{name: np.zeros(len(words), np.int64) for name, words in self._categories.items()},
        }
        self._score_bins = np.zeros(len(self._score_edges) + 1, np.int64)
        self._nulls = dict.fromkeys(self._bins, 0)
        self._unseen = dict.fromkeys(self._bins, 0)
        self._decisions: dict[str, int] = {}

    def add(self, features: pl.DataFrame, scores: NDArray[np.float32], decisions: pl.Series | None) -> None:
        """Counts rows.

        Args:
            features: the model's features; NaN is null.
            scores: [n], or [n, classes], of which the highest counts.
            decisions: [n], what was decided of each row.
        """
        self._rows += features.height
        for name, edges in self._numeric.items():
            values = features.get_column(name).cast(pl.Float32).fill_null(float("nan")).to_numpy()
            bins, nulls = _histogram(values, edges)
            self._bins[name] += bins
            self._nulls[name] += nulls
        for name, words in self._categories.items():
            self._add_words(name, words, features.get_column(name))
        highest = scores if scores.ndim == 1 else scores.max(axis=1, initial=-np.inf)
        self._score_bins += _histogram(highest, self._score_edges)[0]
        if decisions is not None:
            for value, rows in decisions.value_counts().iter_rows():
                told = str(value).lower() if isinstance(value, bool) else str(value)
                self._decisions[told] = self._decisions.get(told, 0) + rows

    def _add_words(self, name: str, words: tuple[str, ...], values: pl.Series) -> None:
        found = dict(values.cast(pl.String).value_counts().iter_rows())
        self._nulls[name] += found.pop(None, 0)
        known = [found.pop(word, 0) for word in words]
        self._bins[name] += np.asarray(known, np.int64)
        self._unseen[name] += sum(found.values())

    def counts(self) -> Counts:
        """What was counted."""
        return Counts(
            rows=self._rows,
            reference=self._digest,
            columns={
                name: ColumnCounts(bins=tuple(bins.tolist()), nulls=self._nulls[name], unseen=self._unseen[name])
                for name, bins in self._bins.items()
            },
            score=ColumnCounts(bins=tuple(self._score_bins.tolist())),
            decisions=dict(sorted(self._decisions.items())),
        )


def total(parts: Iterable[Counts]) -> Counts:
    """The counts of several partitions, or pieces of one, taken together.

    Raises:
        ValueError: they are counts by different references, or of nothing.
    """
    counts = list(parts)
    if len({part.reference for part in counts}) != 1:
        raise ValueError("only counts by one and the same reference add up")
    return Counts(
        rows=sum(part.rows for part in counts),
        reference=counts[0].reference,
        columns={name: _sum([part.columns[name] for part in counts]) for name in counts[0].columns},
        score=_sum([part.score for part in counts if part.score is not None]),
        decisions={
            name: sum(part.decisions.get(name, 0) for part in counts)
            for name in sorted({name for part in counts for name in part.decisions})
        },
    )


def _sum(columns: list[ColumnCounts]) -> ColumnCounts:
    return ColumnCounts(
        bins=tuple(map(sum, zip(*(column.bins for column in columns), strict=True))),
        nulls=sum(column.nulls for column in columns),
        unseen=sum(column.unseen for column in columns),
    )


def _edges(column: NumericReference) -> NDArray[np.float32]:
    """The edges as float32, rounded up: x >= edge is then the same for every float32 x."""
    exact = np.asarray(column.edges, np.float64)
    rounded = exact.astype(np.float32)
    return np.where(rounded < exact, np.nextafter(rounded, np.float32(np.inf)), rounded)


def _histogram(values: NDArray[np.float32], edges: NDArray[np.float32]) -> tuple[NDArray[np.int64], int]:
    """Rows of each bin, and rows that are NaN. One comparison an edge is faster than a search for each row's bin."""
    nulls = int(np.count_nonzero(np.isnan(values)))
    above = [len(values) - nulls, *(int(np.count_nonzero(values >= edge)) for edge in edges), 0]
    return np.asarray([more - less for more, less in pairwise(above)], np.int64), nulls
