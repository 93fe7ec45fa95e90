"""Score: what is to be scored, and with which model, is resolved once (a plan); shards of it are scored anywhere; the
scores are staged for their audit (`steps.score_audit`) and published (`steps.predictions`).

The same inputs and model never give a second set of rows. Every row of the input is scored, whatever it holds: null,
NaN and infinite numbers are values that a model has an answer to (a null is "missing"), a text that it never saw is
"unknown", however long; a partition without rows is published without rows. It is the audit that sets a partition
aside whose scores are not finite, or of which too many values are unknown (`scoring.max_unseen_share`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from pipelines import artifacts
from pipelines.counts import NOTE, Counter, total
from pipelines.errors import IntegrityError, NotFoundError, explain
from pipelines.failpoints import failpoint
from pipelines.intervals import HIGH, LOW, Intervals
from pipelines.parquet import Writer, notes
from pipelines.ports import Draft, ModelRegistry, SnapshotStore
from pipelines.records import Counts, ModelRef, Piece, RunInfo, Scored, ScorePlan, Shard, StagedPartition
from pipelines.scoring import reasons
from pipelines.scoring.engine import Engine
from pipelines.scoring.reasons import Reasons
from pipelines.spec import UseCase
from pipelines.steps.agreement import check_model, check_rows
from pipelines.steps.features import build_features
from pipelines.steps.inputs import fingerprint, heads, homes, input_digests, used
from pipelines.steps.pieces import writing
from pipelines.steps.predictions import (
    DECISION,
    PREDICTIONS,
    SCORED_AT,
    SNAPSHOT,
    due,
    published_predictions,
    score_columns,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipelines.scoring.engine import Batch

#: Rows that are in memory at once, a few times over: features, scores and what is written of them.
_BATCH_ROWS = 131_072
#: Partitions, and rows of them, whose features are built by one query.
_TOGETHER, _TOGETHER_ROWS = 32, 262_144
#: In a partition file of predictions: rows with an unknown value, by categorical feature.
_UNKNOWN = "overnight.unknown"
#: Columns with few distinct values.
_REPEATED = (DECISION, "model_version", SNAPSHOT, SCORED_AT)


def plan(
    spec: UseCase,
    store: SnapshotStore,
    model: ModelRef,
    partitions: Sequence[str],
    run: RunInfo,
    *,
    anew: bool = False,
) -> ScorePlan:
    """Resolves what is to be scored: snapshots, what of it is due, and shards of about `scoring.shard_rows` rows.

    A partition that has predictions from the same inputs is left as it is, whichever model made them, unless
    `anew` asks for this model. A restated input is scored again.

    Args:
        anew: the model was named by a person: score again where another model did.

    Raises:
        NotFoundError: a partition is not published.
        SchemaMismatch: the rows lack a column that the spec names, or have it in another type.
    """
    snapshots = heads(spec, store, ("rows", *(name for name in spec.context if name != "rows")))
    check_rows(spec, store.scan(snapshots["rows"], []).collect_schema())
    history = {table: store.history(table) for table in snapshots}  # a server takes long to tell it
    digests = {table: input_digests(store, snapshot, history[table]) for table, snapshot in snapshots.items()}
    held = store.partitions(snapshots["rows"])
    if absent := sorted(set(partitions) - set(held)):
        raise NotFoundError(
            explain(
                f"{spec.name}/rows",
                f"not published: {', '.join(absent[:5])}",
                remedy="ingest the partition; if it is in quarantine, mend its file first",
            )
        )
    chosen = sorted(set(partitions))
    read = {partition: used(spec, digests, partition) for partition in chosen}
    asked = ScorePlan(
        model=model,
        inputs=tuple(snapshots.values()),
        rows_in={partition: held[partition].rows for partition in chosen},
        fingerprints={partition: fingerprint(read[partition]) for partition in chosen},
        run=run,
        anew=anew,
        spec=spec.digest,
    )
    wanted = due(asked, published_predictions(store))
    return asked.model_copy(
        update={
            "reads": {
                partition: {table: (min(parts), max(parts)) for table, parts in read[partition].items() if parts}
                for partition in wanted
            },
            "homes": homes(history["rows"], snapshots["rows"], {key: held[key].digest for key in wanted}),
            "due": tuple(wanted),
            "unchanged": tuple(sorted(set(chosen) - set(wanted))),
            "shards": shards({partition: asked.rows_in[partition] for partition in wanted}, spec.scoring.shard_rows),
        }
    )


def shards(rows: Mapping[str, int], most: int) -> tuple[Shard, ...]:
    """Partitions in order, together as long as they have no more than `most` rows; a larger one is cut evenly.

    >>> [(shard.partitions, shard.start, shard.rows) for shard in shards({"a": 2, "b": 3, "c": 9}, 5)]
    [(('a', 'b'), 0, None), (('c',), 0, 5), (('c',), 5, 4)]
    """
    found: list[Shard] = []
    group: list[str] = []
    held = 0

    def end() -> None:
        if group:
            found.append(Shard(partitions=tuple(group)))
        group.clear()

    for partition, count in rows.items():
        if group and held + count > most:
            end()
            held = 0
        if count <= most:
            group.append(partition)
            held += count
            continue
        pieces = -(-count // most)
        size = -(-count // pieces)
        found += [
            Shard(partitions=(partition,), start=start, rows=min(size, count - start))
            for start in range(0, count, size)
        ]
    end()
    return tuple(found)


def score(spec: UseCase, store: SnapshotStore, registry: ModelRegistry, resolved: ScorePlan, run: RunInfo) -> Scored:
    """Scores a plan in this process, and stages the scores.

    Raises:
        SchemaMismatch: the model and the snapshot disagree about a column.
        RemovedError: the snapshot was erased meanwhile.
    """
    if not resolved.due:
        return _scored(resolved, (), None, {})
    scorer = _agreeing(Scorer.load(spec, store, resolved, registry.fetch(resolved.model)))
    unseen: dict[str, dict[str, float]] = {}

    def drafts() -> Iterator[Draft]:
        for partition, rows in _by_partition(scorer, _split(resolved, Shard(partitions=resolved.due))):
            yield Draft(partition=partition, write=partial(scorer.write, rows, unseen.setdefault(partition, {})))

    staged = store.stage(PREDICTIONS, drafts(), run)
    return _scored(resolved, staged, scorer.engine.threshold, unseen)


def score_shard(
    spec: UseCase,
    store: SnapshotStore,
    artifact: Path,
    resolved: ScorePlan,
    shard: Shard,
    out: Path,
    *,
    threads: int | None = None,
) -> Piece:
    """Scores one shard of a plan into files of its own; they appear whole or not at all.

    Args:
        artifact: the verified folder of the plan's model.
        out: folder of the plan's pieces; the same shard again replaces its files by the same bytes.
        threads: tiles that are scored at once; what this process may use when not given.

    Raises:
        SchemaMismatch, RemovedError: see `score`.
        UnavailableError: the disk is full.
    """
    scorer = _agreeing(Scorer.load(spec, store, resolved, artifact, threads))
    files = {}
    for partition, rows in _by_partition(scorer, _split(resolved, shard)):
        path = out / f"{partition}-{shard.start:012d}.parquet"
        with writing(path, f"{spec.name}/{PREDICTIONS}/{partition}") as temporary:
            scorer.write(rows, {}, temporary)
            failpoint("shard.written")
        files[partition] = str(path)
    return Piece(shard=shard, files=files)


def stage_pieces(
    spec: UseCase, store: SnapshotStore, artifact: Path, resolved: ScorePlan, pieces: Sequence[Piece], run: RunInfo
) -> Scored:
    """Stages the scores of all shards, merged: byte for byte what `score` stages.

    Raises:
        IntegrityError: a shard's piece is missing, or there twice.
    """
    if sorted(map(_place, (piece.shard for piece in pieces))) != sorted(map(_place, resolved.shards)):
        raise IntegrityError(explain(f"{spec.name}: pieces", "they are not those of the plan", remedy="score it again"))
    scorer = Scorer.load(spec, store, resolved, artifact)
    files: dict[str, list[Path]] = {}
    for piece in sorted(pieces, key=lambda piece: _place(piece.shard)):
        for partition, path in piece.files.items():
            files.setdefault(partition, []).append(Path(path))
    unseen: dict[str, dict[str, float]] = {}
    drafts = (
        Draft(partition=partition, write=partial(_merge, scorer, files[partition], unseen.setdefault(partition, {})))
        for partition in resolved.due
    )
    return _scored(resolved, store.stage(PREDICTIONS, drafts, run), scorer.engine.threshold, unseen)


def _place(shard: Shard) -> tuple[str, int, int]:
    return shard.partitions[0], shard.start, shard.rows or 0


def _scored(
    resolved: ScorePlan, staged: Sequence[StagedPartition], threshold: float | None, unseen: dict[str, dict[str, float]]
) -> Scored:
    known = {name: getattr(resolved, name) for name in ScorePlan.model_fields}
    return Scored(**known, staged=tuple(staged), threshold=threshold, unseen=unseen)


# -- one model over rows -----------------------------------------------------------------------------------------------


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
        """
        digest = resolved.model.digest
        (reference,) = artifacts.read(artifact, digest, "reference.json")
        rows = next(ref for ref in resolved.inputs if ref.table == "rows")
        asked = spec.scoring
        engine = Engine(artifact, digest=digest, tile_rows=asked.tile_rows, threads=threads)
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

    @cached_property
    def repeated(self) -> tuple[str, ...]:
        """Columns with few distinct values."""
        return *_REPEATED, *(name for name, _ in reasons.names(self.spec.scoring.reasons))

    def batches(self, shard: Shard) -> Iterator[tuple[str, pl.DataFrame, pl.DataFrame, Batch]]:
        """Partition, rows as they are published, their features and their scores, in order, in bounded batches."""
        snapshots = {ref.table: ref for ref in self.plan.inputs}
        features = build_features(self.spec, self.store, snapshots, shard.partitions)
        if shard.start or shard.rows is not None:
            features = features.slice(shard.start, shard.rows)
        # Once here, instead of in the engine and again where rows are counted: both take NaN for null.
        # What the spec does not name as a number, the engine refuses by its name.
        numbers = [name for name in self.engine.numeric if name in self.spec.features.numeric]
        features = features.with_columns(pl.col(numbers).fill_null(float("nan")))
        held: list[tuple[str, pl.DataFrame]] = []

        def frames() -> Iterator[pl.DataFrame]:
            for batch in features.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True, engine="streaming"):
                for partition, part in _runs(batch):
                    held.append((partition, part))
                    yield part

        for batch in self.engine.score_batches(frames()):
            partition, part = held.pop(0)
            yield partition, self._rows(partition, part.select(self.spec.rows.key), part, batch), part, batch
            failpoint("score.batch")

    def write(self, rows: Iterable[Scoring], unseen: dict[str, float], path: Path) -> int:
        """Writes one partition's rows, and notes what was counted of them in the file's footer.

        Args:
            unseen: filled with the share of unknown values by categorical feature.

        Returns:
            How many rows there are.
        """
        encoders = self.engine.encoders
        counter, unknown = Counter(self.reference, encoders=encoders), dict.fromkeys(self.engine.categorical, 0)
        with Writer(path, self.schema, self.repeated) as file:
            for _, frame, features, batch in rows:
                decided = frame.get_column(DECISION) if DECISION in frame.columns else None
                counter.add(features, batch.scores, decided, batch.codes)
                for name, count in batch.unknown.items():
                    unknown[name] += count
                file.write(frame)
            return self.end(file, counter.counts(), unknown, unseen)

    def end(self, file: Writer, counts: Counts, unknown: Mapping[str, int], unseen: dict[str, float]) -> int:
        """Ends a partition's file with its notes."""
        unseen.update({name: count / max(counts.rows, 1) for name, count in unknown.items()})
        return file.close({NOTE: counts.model_dump_json(exclude_defaults=True), _UNKNOWN: json.dumps(unknown)})

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


def _agreeing(scorer: Scorer) -> Scorer:
    """The same. A replay scores with a model of another spec; a night does not."""
    check_model(scorer.spec, scorer.engine.numeric, scorer.engine.categorical)
    return scorer


def write_partition(scorer: Scorer, partition: str, path: Path) -> int:
    """Scores one partition into a file; gives its rows."""
    # Not unpacked as the only one: asked whether another follows, the partitions let go of this one's rows.
    _, rows = next(_by_partition(scorer, [Shard(partitions=(partition,))]))
    return scorer.write(rows, {}, path)


#: Partition, rows to publish, their features and their scores.
Scoring = tuple[str, pl.DataFrame, pl.DataFrame, "Batch"]


def _by_partition(scorer: Scorer, parts: Iterable[Shard]) -> Iterator[tuple[str, Iterator[Scoring]]]:
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


def _split(resolved: ScorePlan, shard: Shard) -> Iterator[Shard]:
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


def _merge(scorer: Scorer, files: list[Path], unseen: dict[str, float], path: Path) -> int:
    told = [notes(file) for file in files]
    unknown = dict.fromkeys(scorer.engine.categorical, 0)
    for each in told:
        for name, count in json.loads(each[_UNKNOWN]).items():
            unknown[name] += count
    with Writer(path, scorer.schema, scorer.repeated) as merged:
        rows = pl.scan_parquet(files, hive_partitioning=False)
        for frame in rows.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True, engine="streaming"):
            merged.write(frame)
        counts = total([Counts.model_validate_json(each[NOTE]) for each in told])
        return scorer.end(merged, counts, unknown, unseen)
