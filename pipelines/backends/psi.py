"""Drift by the population stability index, exact over every row, on edges that are frozen with the champion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl

from pipelines.backends.psi_calibration import Scale, freedom
from pipelines.backends.psi_distances import jensen_shannon, psi, vanished
from pipelines.backends.psi_reference import before, bins, calm, season
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
        _require(features.columns, ("partition", *spec.features.columns), f"{spec.name}: reference")
        bare = Reference(
            rows=features.height,
            numeric={name: _numeric(features.get_column(name), spec.drift.bins) for name in spec.features.numeric},
            categorical={name: _categorical(features.get_column(name)) for name in spec.features.categorical},
            score=_numeric(scores.get_column(_SCORE), spec.drift.bins),
            score_rows=scores.height,
        )
        counts = self.count(spec, bare.model_dump_json().encode(), features.lazy())
        scored = self.count_scores(spec, bare, scores.lazy())
        return bare.model_copy(update=calm(spec, counts, {key: {_SCORE: each} for key, each in scored.items()}))

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
        whole = {name: before(held) for name, held in reference.numeric.items()}
        whole |= {name: before(held) for name, held in reference.categorical.items()}
        _require(whole, wanted, _whose(spec))
        _require(counts.columns, wanted, f"{spec.name}: counts")
        same_day = season(spec, reference, partition)
        compared = {name: bins(same_day[name]) for name in wanted} if same_day else whole
        scale = Scale(
            known=reference.daily_unrest if same_day else reference.unrest,
            rows=counts.rows,
            reference_rows=sum(compared[wanted[0]]),
            columns=len(set(wanted) - set(spec.drift.ignore)),
        )
        words = {name: tuple(held.counts) for name, held in reference.categorical.items()}
        return tuple(
            _drift(spec, compared[name], name, counts.columns[name], scale, words.get(name)) for name in wanted
        )

    def drift_of_scores(self, spec: UseCase, reference: Reference, counts: ColumnCounts) -> ColumnDrift:
        """Drift of the scores, from counts by this reference; it has no season."""
        scale = Scale(
            known=reference.score_unrest, rows=sum(bins(counts)), reference_rows=reference.score_rows, columns=1
        )
        return _drift(spec, before(reference.score), _SCORE, counts, scale)

    def measure(
        self, spec: UseCase, reference: Reference, features: pl.LazyFrame
    ) -> dict[str, tuple[ColumnDrift, ...]]:
        """`drift_of` the `count` of every partition, in key order; raises what they do."""
        counted = self.count(spec, reference.model_dump_json().encode(), features)
        return {partition: self.drift_of(spec, reference, counts, partition) for partition, counts in counted.items()}

    def measure_scores(self, spec: UseCase, reference: Reference, scores: pl.LazyFrame) -> dict[str, ColumnDrift]:
        """`drift_of_scores` of the `count_scores` of every partition, in key order; raises what they do."""
        counted = self.count_scores(spec, reference, scores)
        return {key: self.drift_of_scores(spec, reference, counts) for key, counts in counted.items()}


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
    spec: UseCase,
    reference: Sequence[int],
    column: str,
    counts: ColumnCounts,
    scale: Scale,
    words: Sequence[str] | None = None,
) -> ColumnDrift:
    """One column against the reference's bins.

    Args:
        words: categories, in the order of the bins; None: a numeric column.
    """
    current = bins(counts)
    rows, index, free = max(sum(current), 1), psi(reference, current), freedom(reference, current)
    warn_at = max(spec.drift.warn, scale.threshold(column, free, spec.drift.false_warnings))
    alarm_at = max(spec.drift.alarm, scale.threshold(column, free, spec.drift.false_alarms))
    if math.isnan(index) or sum(current) < spec.drift.min_rows:
        level: Level = "unknown"
    else:
        level = "alarm" if index >= alarm_at else "warning" if index >= warn_at else "calm"
    return ColumnDrift(
        column=column,
        psi=index,
        null_share=counts.nulls / rows,
        unseen_share=counts.unseen / rows,
        js=None if words is None else jensen_shannon(reference, current),
        vanished=() if words is None else vanished(reference, current, words),
        warn_at=warn_at,
        alarm_at=alarm_at,
        level=level,
    )


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
