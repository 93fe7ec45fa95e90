"""One model over rows of pinned snapshots: rows of predictions come out, and their files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pipelines import artifacts
from pipelines.counts import NOTE, Counter
from pipelines.failpoints import failpoint
from pipelines.intervals import HIGH, LOW, Intervals
from pipelines.parquet import Writer
from pipelines.ports import SnapshotStore
from pipelines.records import Counts, ScorePlan, Shard
from pipelines.scoring import reasons
from pipelines.scoring.engine import Engine
from pipelines.scoring.reasons import Reasons
from pipelines.spec import UseCase
from pipelines.steps.agreement import check_model
from pipelines.steps.features import build_features
from pipelines.steps.predictions import DECISION, PREDICTIONS, SCORED_AT, SNAPSHOT, score_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.scoring.engine import Batch

#: Rows that are in memory at once, a few times over: features, scores and what is written of them.
BATCH_ROWS = 131_072
#: Rows of a large partition that one query reads: whole row groups of a file of ours.
_QUERY_ROWS = 1_048_576
#: Partitions, and rows of them, whose features are built by one query.
_TOGETHER, _TOGETHER_ROWS = 32, 262_144
#: In a partition file of predictions: rows with an unknown value, by categorical feature.
UNKNOWN = "overnight.unknown"


def repeated(spec: UseCase) -> tuple[str, ...]:
    """Columns of predictions with few distinct values."""
    return DECISION, "model_version", SNAPSHOT, SCORED_AT, *(name for name, _ in reasons.names(spec.scoring.reasons))


def noted(counts: Counts, unknown: Mapping[str, int], unseen: dict[str, float]) -> dict[str, str]:
    """The notes of a partition's file.

    Args:
        unknown: rows with an unknown value, by categorical feature.
        unseen: filled with their shares.
    """
    unseen.update({name: count / max(counts.rows, 1) for name, count in unknown.items()})
    return {NOTE: counts.model_dump_json(exclude_defaults=True), UNKNOWN: json.dumps(unknown)}


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A loaded model that turns rows of pinned snapshots into rows of predictions."""

    spec: UseCase
    store: SnapshotStore
    plan: ScorePlan
    engine: Engine
    reference: bytes
    """The champion's reference.json, whose bins are counted."""
    keys: pl.Schema
    """The key columns of the rows."""
    extra: Mapping[str, pl.DataType]
    """Columns of the published table that this spec does not fill: it asked for them once."""
    published: tuple[str, ...] = ()
    """The columns of the published table, in its order."""
    interval: Intervals | None = None
    reasons: Reasons | None = None

    @classmethod
    def load(
        cls, spec: UseCase, store: SnapshotStore, resolved: ScorePlan, artifact: Path, threads: int | None = None
    ) -> Scorer:
        """Loads the plan's model from its verified folder.

        Raises:
            IntegrityError: the folder is not the plan's model.
            SchemaMismatch: the spec asks for an interval or for reasons, of which the model knows nothing.
            SpecError, UnavailableError: the spec asks for a GPU; see `Engine`.
        """
        digest = resolved.model.digest
        (reference,) = artifacts.read(artifact, digest, "reference.json")
        rows = next(ref for ref in resolved.inputs if ref.table == "rows")
        asked = spec.scoring
        engine = Engine(artifact, digest=digest, tile_rows=asked.tile_rows, threads=threads, device=asked.device)
        bare = cls(
            spec=spec,
            store=store,
            plan=resolved,
            engine=engine,
            reference=reference,
            keys=store.scan(rows, [], spec.rows.key).drop("partition").collect_schema(),
            extra={},
            interval=None if asked.interval is None else Intervals.of(engine.facts, asked.interval),
            reasons=Reasons(engine, digest, asked.reasons) if asked.reasons else None,
        )
        head = store.head(PREDICTIONS)
        return bare if head is None else bare.like(store.scan(head, []).drop("partition").collect_schema())

    def like(self, published: pl.Schema) -> Scorer:
        """The same with every column of a published file, null where this spec does not fill it."""
        own = replace(self, extra={}).schema
        extra = {name: dtype for name, dtype in published.items() if name not in own}
        return replace(self, extra=extra, published=tuple(published))

    @cached_property
    def schema(self) -> pl.Schema:
        """The columns of a partition file."""
        features = pl.Schema(
            dict.fromkeys(self.engine.numeric, pl.Float32()) | dict.fromkeys(self.engine.categorical, pl.String())
        )
        (nothing,) = self.engine.score_batches([features.to_frame()])
        return self._rows("", self.keys.to_frame(), features.to_frame(), nothing).schema

    def batches(self, shard: Shard) -> Iterator[tuple[str, pl.DataFrame, pl.DataFrame, Batch]]:
        """Partition, rows as they are published, their features and their scores, in order, in bounded batches."""
        snapshots = {ref.table: ref for ref in self.plan.inputs}
        features = build_features(self.spec, self.store, snapshots, shard.partitions)
        # Once here, instead of in the engine and again where rows are counted: both take NaN for null.
        # What the spec does not name as a number, the engine refuses by its name.
        numbers = [name for name in self.engine.numeric if name in self.spec.features.numeric]
        features = features.with_columns(pl.col(numbers).fill_null(float("nan")))
        held: list[tuple[str, pl.DataFrame]] = []

        def frames() -> Iterator[pl.DataFrame]:
            for start, rows in self._stretches(shard):
                asked = features if rows is None and not start else features.slice(start, rows)
                for batch in asked.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True, engine="streaming"):
                    for partition, part in _runs(batch):
                        held.append((partition, part))
                        yield part

        for batch in self.engine.score_batches(frames()):
            partition, part = held.pop(0)
            yield partition, self._rows(partition, part.select(self.spec.rows.key), part, batch), part, batch
            failpoint("score.batch")

    def _stretches(self, shard: Shard) -> Iterator[tuple[int, int | None]]:
        """Start and rows of each query over a shard; None: to the end.

        A query reads ahead of a slower consumer, 40 row groups and more, so that a large partition takes several. Where
        a function makes features of all its rows, each query would make them all: there it is one.
        """
        one = shard.partitions[0] if len(shard.partitions) == 1 else None
        rows = shard.rows if one is None or shard.rows is not None else self.plan.rows_in.get(one)
        if rows is None or rows <= _QUERY_ROWS or self.spec.features.function is not None:
            yield shard.start, shard.rows
            return
        for start in range(shard.start, shard.start + rows, _QUERY_ROWS):
            yield start, min(_QUERY_ROWS, shard.start + rows - start)

    def write(self, rows: Iterable[Scoring], unseen: dict[str, float], path: Path) -> int:
        """Writes one partition's rows, and notes what was counted of them in the file's footer.

        Args:
            unseen: filled with the share of unknown values by categorical feature.

        Returns:
            How many rows there are.
        """
        encoders = self.engine.encoders
        counter, unknown = Counter(self.reference, encoders=encoders), dict.fromkeys(self.engine.categorical, 0)
        with Writer(path, self.schema, repeated(self.spec)) as file:
            for _, frame, features, batch in rows:
                decided = frame.get_column(DECISION) if DECISION in frame.columns else None
                counter.add(features, batch.scores, decided, batch.codes)
                for name, count in batch.unknown.items():
                    unknown[name] += count
                file.write(frame)
            return file.close(noted(counter.counts(), unknown, unseen))

    def _rows(self, partition: str, keys: pl.DataFrame, features: pl.DataFrame, batch: Batch) -> pl.DataFrame:
        scores, spec = batch.scores, self.spec
        if spec.label.task == "multiclass":
            names = spec.label.classes
            columns = [pl.Series(name, scores[:, index]) for index, name in enumerate(score_columns(spec))]
            best = scores.argmax(axis=1) if len(scores) else []
            columns.append(pl.Series(DECISION, names, dtype=pl.String).gather(best))
        else:
            columns = [pl.Series("score", scores)]
            if (decided := self.engine.decide(scores)) is not None:
                columns.append(pl.Series(DECISION, decided))
        if self.interval is not None:
            low, high = self.interval.around(scores)
            columns += [pl.Series(LOW, low), pl.Series(HIGH, high)]
        if self.reasons is not None:
            columns += self.reasons.of(features, scores)
        rows = keys.with_columns(
            *columns,
            pl.lit(self.plan.model.version, dtype=pl.Int64).alias("model_version"),
            pl.lit(self.plan.homes.get(partition), dtype=pl.String).alias(SNAPSHOT),
            pl.lit(self.plan.run.at, dtype=pl.Datetime("us", "UTC")).alias(SCORED_AT),
            *(pl.lit(None, dtype=dtype).alias(name) for name, dtype in self.extra.items()),
        )
        return rows.select(_in_order(self.published, rows.columns)) if self.extra else rows


def _in_order(published: Sequence[str], own: Sequence[str]) -> list[str]:
    """Every column, those of the published table in its order, as a store asks; a new one follows the one before it.

    >>> _in_order(["id", "score", "reason", "model"], ["id", "score", "low", "model", "reason"])
    ['id', 'score', 'low', 'reason', 'model']
    """
    found = list(published)
    for before, name in pairwise(["", *own]):
        if name not in found:
            found.insert(found.index(before) + 1 if before else 0, name)
    return found


def agreeing(scorer: Scorer) -> Scorer:
    """The same. A replay scores with a model of another spec; a night does not."""
    check_model(scorer.spec, scorer.engine.numeric, scorer.engine.categorical)
    return scorer


def write_partition(scorer: Scorer, partition: str, path: Path) -> int:
    """Scores one partition into a file; gives its rows."""
    # Not unpacked as the only one: asked whether another follows, the partitions let go of this one's rows.
    _, rows = next(by_partition(scorer, [Shard(partitions=(partition,))]))
    return scorer.write(rows, {}, path)


#: Partition, rows to publish, their features and their scores.
Scoring = tuple[str, pl.DataFrame, pl.DataFrame, "Batch"]


def by_partition(scorer: Scorer, parts: Iterable[Shard]) -> Iterator[tuple[str, Iterator[Scoring]]]:
    """Each partition's rows; a partition without rows gives none. One partition must be used up before the next."""
    for shard in parts:
        waiting = list(shard.partitions)
        for partition, rows in groupby(scorer.batches(shard), key=lambda scored: scored[0]):
            while waiting[0] != partition:
                yield waiting.pop(0), iter(())
            yield waiting.pop(0), rows
        for partition in waiting:
            yield partition, iter(())


def _runs(batch: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """A batch's stretches of one partition each, in order; no row is copied."""
    start = 0
    for told in batch.get_column("partition").rle():
        yield told["value"], batch.slice(start, told["len"])
        start += told["len"]


def split(resolved: ScorePlan, shard: Shard) -> Iterator[Shard]:
    """The shard in pieces whose features are built by one query each."""
    if len(shard.partitions) == 1:
        yield shard
        return
    group: list[str] = []
    held = 0
    for partition in shard.partitions:
        rows = resolved.rows_in[partition]
        if group and (len(group) == _TOGETHER or held + rows > _TOGETHER_ROWS):
            yield Shard(partitions=tuple(group))
            group, held = [], 0
        group.append(partition)
        held += rows
    if group:
        yield Shard(partitions=tuple(group))
