"""Counts rows by the bins of a champion's frozen reference, while they are scored; drift is then a matter of adding.

This is the only binning there is: a reference is frozen with it, rows are counted with it when scored and when counted
again from a snapshot. Counts are integers, so those of tiles, shards and partitions add up to the same figures in any
order. Nulls, and NaN, are counted apart, and so are the categories that the reference does not hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pipelines.records import ColumnCounts, Counts, Reference

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pipelines.scoring.encode import Encoder

    #: [bins + 2]: rows of each bin; then nulls; then values that the reference does not hold.
    Tally = NDArray[np.int64]

#: Under which name a partition file of predictions keeps its counts.
NOTE = "overnight.counts"
#: Values that are compared with all edges before the next ones are: they stay in a core's own cache.
_CACHED = 65_536


class Edges:
    """The bins of a numeric column: bin i holds edges[i-1] <= x < edges[i]; the first and the last are open."""

    def __init__(self, edges: Sequence[float]) -> None:
        """Takes edges, ascending and finite."""
        self._exact = np.asarray(edges, np.float64)
        with np.errstate(over="ignore"):
            nearest = self._exact.astype(np.float32)
            up = np.nextafter(nearest, np.float32(np.inf))
        # Rounded up, for then x >= edge says the same of every float32 x.
        self._single = np.where(nearest.astype(np.float64) < self._exact, up, nearest)
        self.bins = len(self._exact) + 1

    def tally(self, values: pl.Series) -> Tally:
        """Counts numbers; other types than Float32 are compared as Float64, the same as what reads them later.

        Args:
            values: [n]; NaN is null.
        """
        single = values.dtype == pl.Float32
        column = values if single else values.cast(pl.Float64)
        numbers = (column.fill_null(float("nan")) if column.null_count() else column).to_numpy()
        return self.tally_of(numbers)

    def tally_of(self, numbers: NDArray[np.floating]) -> Tally:
        """The same for an array of float32 or float64."""
        edges = self._single if numbers.dtype == np.float32 else self._exact
        lowest = edges.dtype.type(-np.inf)  # what is not even this is NaN
        # A comparison an edge, many values by one instruction: a search would take each value by itself.
        found = np.zeros(self.bins, np.int64)
        reached = np.empty(min(len(numbers), _CACHED), np.bool_)
        for start in range(0, len(numbers), _CACHED):
            some = numbers[start : start + _CACHED]
            out = reached[: len(some)]
            for place, edge in enumerate((lowest, *edges)):
                np.greater_equal(some, edge, out=out)
                found[place] += np.count_nonzero(out)
        above = found.tolist()
        rows = [more - less for more, less in pairwise((*above, 0))]
        return np.asarray([*rows, len(numbers) - above[0], 0], np.int64)


class Words:
    """The bins of a categorical column: one a category of the reference, which is not the model's vocabulary."""

    def __init__(self, words: Sequence[str]) -> None:
        """Takes distinct categories, in the order of their bins."""
        self.words = tuple(words)
        self._known = pl.Enum(words)
        self.bins = len(words)

    def tally(self, values: pl.Series) -> Tally:
        """Counts words.

        Args:
            values: [n], of any type that can be cast to text.
        """
        text = values.cast(pl.String)
        found = np.zeros(self.bins + 2, np.int64)
        nulls, known = text.null_count(), 0
        if self.bins:
            places = text.cast(self._known, strict=False).to_physical().drop_nulls().to_numpy()
            found[: self.bins], known = np.bincount(places, minlength=self.bins), len(places)
        found[self.bins :] = nulls, len(text) - nulls - known
        return found


class Coded:
    """The bins of a categorical column whose words a model has encoded already: most are counted by their codes.

    What the model takes for unknown or missing is looked at as text: the rare words that it pools have bins of their
    own, and a word that means missing to it is a word to the reference.
    """

    def __init__(self, words: Words, encoder: Encoder) -> None:
        """Takes the reference's categories, and how the column was encoded."""
        self._words, self._encoder = words, encoder
        self.bins = words.bins
        place = {word: i for i, word in enumerate(words.words)}
        unseen = self.bins + 1
        self._places = np.asarray([place.get(word, unseen) for word in encoder.words], np.intp)
        self._vocabulary = slice(encoder.first, encoder.first + len(encoder.words))
        self._codes = max(self._vocabulary.stop, encoder.unknown + 1, encoder.missing + 1)

    def tally(self, values: pl.Series, codes: NDArray[np.int64]) -> Tally:
        """Counts words.

        Args:
            values: [n].
            codes: [n], what the encoder made of them.
        """
        encoder = self._encoder
        rows = np.bincount(codes, minlength=self._codes)
        found = np.zeros(self.bins + 2, np.int64)
        np.add.at(found, self._places, rows[self._vocabulary])
        nulls = values.null_count()
        strange = codes == encoder.unknown
        if rows[encoder.missing] == nulls:
            found[self.bins] = nulls
        else:
            strange |= codes == encoder.missing
        return found + self._words.tally(values.filter(pl.Series(strange))) if strange.any() else found


def column_counts(tally: Tally) -> ColumnCounts:
    """A tally as a record."""
    *bins, nulls, unseen = tally.tolist()
    return ColumnCounts(bins=tuple(bins), nulls=nulls, unseen=unseen)


class _Frozen:
    """A reference made ready to count by."""

    def __init__(self, reference: bytes) -> None:
        told = Reference.model_validate_json(reference)
        self.digest = hashlib.sha256(reference).hexdigest()
        self.columns: Mapping[str, Edges | Words] = {
            **{name: Edges(column.edges) for name, column in told.numeric.items()},
            **{name: Words(tuple(column.counts)) for name, column in told.categorical.items()},
        }
        self.score = Edges(told.score.edges)


@lru_cache(maxsize=4)
def _frozen(reference: bytes) -> _Frozen:
    """Kept, for each partition is counted by itself and all by the same reference."""
    return _Frozen(reference)


class Counter:
    """Counts of the rows that were added so far."""

    def __init__(
        self,
        reference: bytes,
        columns: Collection[str] | None = None,
        encoders: Mapping[str, Encoder] | None = None,
    ) -> None:
        """Counts nothing yet.

        Args:
            reference: a champion's reference.json.
            columns: those that are counted; every column of the reference when not given.
            encoders: of the categorical columns whose codes `add` is given.
        """
        frozen = _frozen(reference)
        self._digest = frozen.digest
        self._columns = {name: bins for name, bins in frozen.columns.items() if columns is None or name in columns}
        self._coded = {
            name: Coded(bins, (encoders or {})[name])
            for name, bins in self._columns.items()
            if isinstance(bins, Words) and name in (encoders or {})
        }
        self._score = frozen.score
        self._rows = 0
        self._tallies = {name: np.zeros(bins.bins + 2, np.int64) for name, bins in self._columns.items()}
        self._scores = np.zeros(frozen.score.bins + 2, np.int64)
        self._scored = False
        self._decisions: dict[str, int] = {}

    def add(
        self,
        rows: pl.DataFrame,
        scores: NDArray[np.float32] | None = None,
        decisions: pl.Series | None = None,
        codes: Mapping[str, NDArray[np.int64]] | None = None,
    ) -> None:
        """Counts rows.

        Args:
            rows: at least the columns that are counted.
            scores: [n], or [n, classes], of which the highest counts.
            decisions: [n], what was decided of each row.
            codes: [n] each, of the columns that have an encoder; without them text is counted, to the same figures.
        """
        self._rows += rows.height
        for name, bins in self._columns.items():
            column = rows.get_column(name)
            coded = self._coded[name].tally(column, codes[name]) if codes and name in self._coded else None
            self._tallies[name] += bins.tally(column) if coded is None else coded
        if scores is not None:
            highest = scores if scores.ndim == 1 else scores.max(axis=1, initial=-np.inf)
            self._scores += self._score.tally_of(highest)
            self._scored = True
        if decisions is not None:
            for value, count in decisions.value_counts().iter_rows():
                told = str(value).lower() if isinstance(value, bool) else str(value)
                self._decisions[told] = self._decisions.get(told, 0) + count

    def counts(self) -> Counts:
        """What was counted."""
        return Counts(
            rows=self._rows,
            reference=self._digest,
            columns={name: column_counts(tally) for name, tally in self._tallies.items()},
            score=column_counts(self._scores) if self._scored else None,
            decisions=dict(sorted(self._decisions.items())),
        )


def total(parts: Iterable[Counts]) -> Counts:
    """The counts of several partitions, or pieces of one, taken together, in any order and grouping.

    Raises:
        ValueError: they are counts by different references or of different columns, or of nothing.
    """
    counts = list(parts)
    if len({(part.reference, frozenset(part.columns)) for part in counts}) != 1:
        raise ValueError("only counts of the same columns by one and the same reference add up")
    scores = [part.score for part in counts if part.score is not None]
    return Counts(
        rows=sum(part.rows for part in counts),
        reference=counts[0].reference,
        columns={name: added([part.columns[name] for part in counts]) for name in counts[0].columns},
        score=added(scores) if scores else None,
        decisions={
            name: sum(part.decisions.get(name, 0) for part in counts)
            for name in sorted({name for part in counts for name in part.decisions})
        },
    )


def added(columns: Sequence[ColumnCounts]) -> ColumnCounts:
    """The counts of one column taken together.

    Raises:
        ValueError: they are of different bins.
    """
    return ColumnCounts(
        bins=tuple(map(sum, zip(*(column.bins for column in columns), strict=True))),
        nulls=sum(column.nulls for column in columns),
        unseen=sum(column.unseen for column in columns),
    )
