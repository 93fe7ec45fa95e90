"""Drift by the population stability index, exact over every row, on edges that are frozen with the champion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl

from pipelines.counts import Counter, Edges, Words, column_counts
from pipelines.errors import SchemaMismatch, explain
from pipelines.records import (
    CategoricalReference,
    ColumnCounts,
    ColumnDrift,
    Counts,
    Level,
    NumericReference,
    Reference,
)
from pipelines.spec import UseCase

if TYPE_CHECKING:
    from pipelines.counts import Tally

_SCORE = "score"
#: Rows that are counted at once.
_BATCH_ROWS = 65_536


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
        q, p = before / rows_reference, now / rows_current
        q, p = q if q > floor else floor, p if p > floor else floor
        terms.append((p - q) * math.log(p / q))
    return math.fsum(terms)


class PopulationStability:
    """A `DriftDetector`: integer counts on frozen bins, so that the counts of partitions add up exactly.

    Nulls (and NaN) are a bin of their own, and so are the categories that the reference does not hold. Whether rows
    were counted when they were scored or are counted here makes no difference: `pipelines.counts` does both.
    """

    def reference(self, spec: UseCase, features: pl.DataFrame, scores: pl.DataFrame) -> Reference:
        """Freezes edges and counts of the training features and of the scores on rows it was not trained on.

        Args:
            features: `partition` and the features of the training rows.
            scores: `partition` and `score`.

        Raises:
            SchemaMismatch: a feature is missing.
        """
        _require(features.columns, spec.features.columns, f"{spec.name}: reference")
        return Reference(
            rows=features.height,
            numeric={name: _numeric(features.get_column(name), spec.drift.bins) for name in spec.features.numeric},
            categorical={name: _categorical(features.get_column(name)) for name in spec.features.categorical},
            score=_numeric(scores.get_column(_SCORE), spec.drift.bins),
            score_rows=scores.height,
        )

    def count(self, spec: UseCase, reference: bytes, features: pl.LazyFrame) -> dict[str, Counts]:
        """Counts of every feature by `partition`, in key order, in bounded memory; scores are not among them.

        Args:
            reference: the champion's reference.json.
            features: `partition` and the features.

        Raises:
            SchemaMismatch: a feature is missing, in the rows or in the reference.
        """
        wanted = spec.features.columns
        _require(features.collect_schema().names(), ("partition", *wanted), f"{spec.name}: drift")
        known = Reference.model_validate_json(reference)
        _require((*known.numeric, *known.categorical), wanted, _whose(spec))
        counters: dict[str, Counter] = {}
        for partition, rows in _by_partition(features.select("partition", *wanted)):
            if partition not in counters:
                counters[partition] = Counter(reference, wanted)
            counters[partition].add(rows)
        return {partition: counters[partition].counts() for partition in sorted(counters)}

    def count_scores(self, spec: UseCase, reference: Reference, scores: pl.LazyFrame) -> dict[str, ColumnCounts]:
        """Counts of the scores by `partition`, in key order.

        Args:
            scores: `partition` and `score`.

        Raises:
            SchemaMismatch: one of the two columns is missing.
        """
        _require(scores.collect_schema().names(), ("partition", _SCORE), f"{spec.name}: drift of the scores")
        edges = Edges(reference.score.edges)
        tallies: dict[str, Tally] = {}
        for partition, rows in _by_partition(scores.select("partition", _SCORE)):
            tally = edges.tally(rows.get_column(_SCORE))
            tallies[partition] = tallies[partition] + tally if partition in tallies else tally
        return {partition: column_counts(tallies[partition]) for partition in sorted(tallies)}

    def drift_of(
        self, spec: UseCase, reference: Reference, counts: Counts, partition: str | None
    ) -> tuple[ColumnDrift, ...]:
        """Drift of every feature, in the spec's order, from counts by this reference.

        Args:
            partition: what was counted; None: several partitions taken together.

        Raises:
            SchemaMismatch: a feature is missing, in the counts or in the reference.
        """
        wanted = spec.features.columns
        frozen: dict[str, NumericReference | CategoricalReference] = {**reference.numeric, **reference.categorical}
        _require(frozen, wanted, _whose(spec))
        _require(counts.columns, wanted, f"{spec.name}: counts")
        return tuple(_drift(spec, frozen[name], name, counts.columns[name]) for name in wanted)

    def drift_of_scores(
        self, spec: UseCase, reference: Reference, counts: ColumnCounts, partition: str | None
    ) -> ColumnDrift:
        """Drift of the scores, from counts by this reference; `partition` as of `drift_of`."""
        return _drift(spec, reference.score, _SCORE, counts)

    def measure(
        self, spec: UseCase, reference: Reference, features: pl.LazyFrame
    ) -> dict[str, tuple[ColumnDrift, ...]]:
        """`drift_of` the `count` of every partition, in key order; raises what they do."""
        counted = self.count(spec, reference.model_dump_json().encode(), features)
        return {partition: self.drift_of(spec, reference, counts, partition) for partition, counts in counted.items()}

    def measure_scores(self, spec: UseCase, reference: Reference, scores: pl.LazyFrame) -> dict[str, ColumnDrift]:
        """`drift_of_scores` of the `count_scores` of every partition, in key order; raises what they do."""
        counted = self.count_scores(spec, reference, scores)
        return {key: self.drift_of_scores(spec, reference, counts, key) for key, counts in counted.items()}


def _whose(spec: UseCase) -> str:
    return f"{spec.name}: the champion's reference"


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


def _numeric(values: pl.Series, bins: int) -> NumericReference:
    edges = _edges(values, bins)
    counts = column_counts(Edges(edges).tally(values))
    return NumericReference(edges=edges, counts=counts.bins, nulls=counts.nulls)


def _categorical(values: pl.Series) -> CategoricalReference:
    text = values.cast(pl.String)
    words = text.drop_nulls().unique().sort().to_list()
    counts = column_counts(Words(words).tally(text))
    return CategoricalReference(counts=dict(zip(words, counts.bins, strict=True)), nulls=counts.nulls)


def _drift(
    spec: UseCase, reference: NumericReference | CategoricalReference, column: str, counts: ColumnCounts
) -> ColumnDrift:
    before = reference.counts.values() if isinstance(reference, CategoricalReference) else reference.counts
    rows = max(sum(counts.bins) + counts.nulls + counts.unseen, 1)
    index = psi([*before, reference.nulls, 0], [*counts.bins, counts.nulls, counts.unseen])
    return ColumnDrift(
        column=column,
        psi=index,
        warn_at=spec.drift.warn,
        alarm_at=spec.drift.alarm,
        level=_level(index, spec),
        null_share=counts.nulls / rows,
        unseen_share=counts.unseen / rows,
    )


def _level(index: float, spec: UseCase) -> Level:
    if math.isnan(index):
        return "unknown"
    return "alarm" if index >= spec.drift.alarm else "warning" if index >= spec.drift.warn else "calm"


def _by_partition(rows: pl.LazyFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """The rows, read once, in bounded frames of one partition each; a partition may come in several."""
    for batch in rows.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=False, engine="streaming"):
        for (partition,), part in batch.partition_by("partition", as_dict=True).items():
            yield str(partition), part


def _require(found: Iterable[str], wanted: Iterable[str], where: str) -> None:
    found = set(found)
    if missing := [name for name in wanted if name not in found]:
        raise SchemaMismatch(
            explain(where, f"no column {', '.join(missing)}", allowed="every feature of the spec", remedy="retrain")
        )
