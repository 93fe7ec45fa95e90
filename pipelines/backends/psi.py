"""Drift by the population stability index, exact over every row, on edges that are frozen with the champion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from pipelines.errors import SchemaMismatch, explain
from pipelines.records import CategoricalReference, ColumnDrift, NumericReference, Reference
from pipelines.spec import UseCase

#: Bins are numbered from 0; these two stand beside them.
_NULL, _UNSEEN = -1, -2
_SCORE = "score"


def psi(reference: Sequence[float], current: Sequence[float]) -> float:
    """The population stability index of two histograms over the same bins.

    PSI = sum over bins of (p - q) ln(p / q), with p and q the bins' shares of the current and of the reference rows:
    Jeffreys' divergence, the sum of both Kullback-Leibler divergences (H. Jeffreys 1946; S. Kullback and R. Leibler
    1951). The name and the reading (below 0.1 little, from 0.25 much) are from credit scoring: N. Siddiqi, Credit Risk
    Scorecards, 2006. With no drift at all its mean is about (bins - 1) (1/n + 1/m) for n and m rows (B. Yurdakul and
    J. Naranjo, Statistical properties of the population stability index, 2020): many bins need many rows.

    Smoothing: no share is taken as less than half a row of the smaller side, which is less than that side can show.
    So the index is finite, a stray row in a bin that the other side lacks is no news, and equal proportions give 0.

    Args:
        reference: counts, one a bin.
        current: counts of the same bins.

    Returns:
        0 or more, the same with the sides exchanged; NaN when a side has no rows, for then there is nothing to compare.

    >>> round(psi([50, 50], [80, 20]), 4)
    0.4159
    """
    if len(reference) != len(current):
        raise ValueError(f"two histograms need the same bins, however: {len(reference)} and {len(current)}")
    rows_reference, rows_current = math.fsum(reference), math.fsum(current)
    if rows_reference <= 0 or rows_current <= 0:
        return math.nan
    floor = 0.5 / min(rows_reference, rows_current)
    terms = []
    for before, now in zip(reference, current, strict=True):
        q, p = max(before / rows_reference, floor), max(now / rows_current, floor)
        terms.append((p - q) * math.log(p / q))
    return math.fsum(terms)


@dataclass(frozen=True, slots=True)
class _Binning:
    """How one column falls into numbered bins."""

    column: str
    edges: tuple[float, ...] = ()
    categories: tuple[str, ...] | None = None
    """Given for a categorical column."""

    def bin(self) -> pl.Expr:
        """The bin of each row: its number, `_NULL`, or `_UNSEEN`."""
        if self.categories is not None:
            text = pl.col(self.column).cast(pl.String)
            numbers = pl.Series(range(len(self.categories)), dtype=pl.Int32)
            seen = (
                text.replace_strict(pl.Series(self.categories, dtype=pl.String), numbers, default=_UNSEEN)
                if self.categories
                else pl.lit(_UNSEEN, pl.Int32)
            )
            return pl.when(text.is_null()).then(_NULL).otherwise(seen).cast(pl.Int32).alias(self.column)
        value = _number(self.column)
        # One comparison an edge: infinities fall into the end bins, and x == edge belongs to the bin above it.
        above = [(value >= edge).cast(pl.Int32) for edge in self.edges]
        number = pl.sum_horizontal(above) if above else pl.lit(0, pl.Int32)
        return pl.when(value.is_null()).then(_NULL).otherwise(number).cast(pl.Int32).alias(self.column)


class PopulationStability:
    """A `DriftDetector`: integer counts on frozen bins, so that the counts of partitions add up exactly.

    Nulls (and NaN) are a bin of their own, and so are the categories that the reference does not hold.
    """

    def reference(self, spec: UseCase, features: pl.DataFrame, scores: pl.Series) -> Reference:
        """Freezes edges and counts of the training features and of the scores on rows it was not trained on.

        Raises:
            SchemaMismatch: a feature is missing.
        """
        _require(features.columns, spec.features.columns, f"{spec.name}: reference")
        binnings = [
            _Binning(column, edges=_edges(features[column], spec.drift.bins)) for column in spec.features.numeric
        ]
        for column in spec.features.categorical:
            values = features[column].cast(pl.String).drop_nulls().unique().sort().to_list()
            binnings.append(_Binning(column, categories=tuple(values)))
        counts = _whole(features.lazy(), binnings)
        score = _Binning(_SCORE, edges=_edges(scores, spec.drift.bins))
        score_counts = _whole(scores.rename(_SCORE).to_frame().lazy(), [score])[_SCORE]
        return Reference(
            rows=features.height,
            numeric={
                binning.column: _numeric(binning, counts[binning.column])
                for binning in binnings
                if binning.categories is None
            },
            categorical={
                binning.column: CategoricalReference(
                    counts={name: counts[binning.column].get(i, 0) for i, name in enumerate(binning.categories)},
                    nulls=counts[binning.column].get(_NULL, 0),
                )
                for binning in binnings
                if binning.categories is not None
            },
            score=_numeric(score, score_counts),
            score_rows=len(scores),
        )

    def measure(
        self, spec: UseCase, reference: Reference, features: pl.LazyFrame
    ) -> dict[str, tuple[ColumnDrift, ...]]:
        """Drift of every feature, in the spec's order, exact over every row, by `partition`.

        Args:
            features: `partition` and the features.

        Raises:
            SchemaMismatch: a feature is missing, in the rows or in the reference.
        """
        wanted = spec.features.columns
        _require(features.collect_schema().names(), ("partition", *wanted), f"{spec.name}: drift")
        _require((*reference.numeric, *reference.categorical), wanted, f"{spec.name}: the champion's reference")
        binnings = [
            _Binning(column, edges=reference.numeric[column].edges)
            if column in reference.numeric
            else _Binning(column, categories=tuple(reference.categorical[column].counts))
            for column in wanted
        ]
        measured: dict[str, tuple[ColumnDrift, ...]] = {}
        for partition, counts in _by_partition(features, binnings).items():
            measured[partition] = tuple(
                _drift(reference.numeric.get(column) or reference.categorical[column], column, counts[column])
                for column in wanted
            )
        return measured

    def measure_scores(self, spec: UseCase, reference: Reference, scores: pl.LazyFrame) -> dict[str, float]:
        """PSI of the scores by partition.

        Args:
            scores: `partition` and `score`.

        Raises:
            SchemaMismatch: one of the two columns is missing.
        """
        _require(scores.collect_schema().names(), ("partition", _SCORE), f"{spec.name}: drift of the scores")
        counts = _by_partition(scores, [_Binning(_SCORE, edges=reference.score.edges)])
        return {key: _drift(reference.score, _SCORE, found[_SCORE]).psi for key, found in counts.items()}


def _number(column: str) -> pl.Expr:
    return pl.col(column).cast(pl.Float64).fill_nan(None)


def _edges(values: pl.Series, bins: int) -> tuple[float, ...]:
    """Inner quantiles of the finite values, ascending and distinct; at most `bins` - 1, two at least for a constant.

    A value that takes up a whole bin gets one of its own, or a column of mostly zeros could not be seen to grow.
    """
    finite = values.cast(pl.Float64).drop_nulls()
    finite = finite.filter(finite.is_finite()).sort()
    if finite.is_empty():
        return ()
    last = len(finite) - 1
    inner = [float(finite[round(i * last / bins)]) for i in range(1, bins)]
    alone = {value for value in inner if inner.count(value) > 1}
    if finite[0] == finite[last]:
        alone = {float(finite[0])}
    above = {math.nextafter(value, math.inf) for value in alone}
    return tuple(sorted(edge for edge in {*inner, *above} if math.isfinite(edge)))


def _numeric(binning: _Binning, counts: Mapping[int, int]) -> NumericReference:
    return NumericReference(
        edges=binning.edges,
        counts=tuple(counts.get(i, 0) for i in range(len(binning.edges) + 1)),
        nulls=counts.get(_NULL, 0),
    )


def _drift(reference: NumericReference | CategoricalReference, column: str, counts: Mapping[int, int]) -> ColumnDrift:
    before = list(reference.counts.values() if isinstance(reference, CategoricalReference) else reference.counts)
    now = [counts.get(i, 0) for i in range(len(before))]
    nulls, unseen = counts.get(_NULL, 0), counts.get(_UNSEEN, 0)
    rows = sum(counts.values())
    beside = [(reference.nulls, nulls), (0, unseen)]
    return ColumnDrift(
        column=column,
        psi=psi([*before, *(r for r, _ in beside)], [*now, *(c for _, c in beside)]),
        null_share=nulls / rows,
        unseen_share=unseen / rows,
    )


def _whole(rows: pl.LazyFrame, binnings: Iterable[_Binning]) -> dict[str, dict[int, int]]:
    """Counts by column and bin over all rows; a column has no entry for an empty bin."""
    binnings = list(binnings)
    counted = _by_partition(rows.with_columns(pl.lit("all").alias("partition")), binnings)
    return counted.get("all", {binning.column: {} for binning in binnings})


def _by_partition(rows: pl.LazyFrame, binnings: Sequence[_Binning]) -> dict[str, dict[str, dict[int, int]]]:
    """Counts by partition (in key order), column and bin: one query over the rows, whatever the number of columns."""
    # Columns are numbered in the query: a feature may itself be called `partition` or `bin` elsewhere.
    bins = rows.select(
        pl.col("partition").alias("key"), *(binning.bin().alias(f"{i}") for i, binning in enumerate(binnings))
    )
    pieces = [
        bins.group_by("key", pl.col(f"{i}").alias("bin")).len("rows").with_columns(pl.lit(i).alias("column"))
        for i in range(len(binnings))
    ]
    found: dict[str, dict[str, dict[int, int]]] = {}
    for key, number, count, column in pl.concat(pieces).sort("key").collect().iter_rows():
        columns = found.get(str(key))
        if columns is None:
            columns = found[str(key)] = {binning.column: {} for binning in binnings}
        columns[binnings[column].column][number] = count
    return found


def _require(found: Iterable[str], wanted: Iterable[str], where: str) -> None:
    found = set(found)
    if missing := [name for name in wanted if name not in found]:
        raise SchemaMismatch(
            explain(where, f"no column {', '.join(missing)}", allowed="every feature of the spec", remedy="retrain")
        )
