"""Score: what is to be scored, and with which model, is resolved once (a plan); shards of it are scored anywhere; the
scores are staged for their audit (`steps.score_audit`) and published (`steps.predictions`).

The same inputs and model never give a second set of rows. Every row of the input is scored, whatever it holds: null,
NaN and infinite numbers are values that a model has an answer to (a null is "missing"), a text that it never saw is
"unknown", however long; a partition without rows is published without rows. It is the audit that sets a partition
aside whose scores are not finite, or of which too many values are unknown (`scoring.max_unseen_share`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines import parquet
from pipelines.errors import IntegrityError, NotFoundError, explain
from pipelines.failpoints import failpoint
from pipelines.ports import Draft, ModelRegistry, SnapshotStore
from pipelines.records import ModelRef, Piece, RunInfo, Scored, ScorePlan, Shard, StagedPartition
from pipelines.scoring.engine import read_facts, threshold
from pipelines.spec import UseCase
from pipelines.steps.agreement import check_rows
from pipelines.steps.inputs import fingerprint, heads, homes, input_digests, used
from pipelines.steps.merging import merge
from pipelines.steps.pieces import writing
from pipelines.steps.predictions import (
    PREDICTIONS,
    due,
    published_predictions,
)
from pipelines.steps.scorer import Scorer, agreeing, by_partition, split

if TYPE_CHECKING:
    from collections.abc import Mapping


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


def even(rows: int, count: int) -> int:
    """Rows of each of so many shards of about the same size that end with row groups, where they are that large.

    >>> even(1_000_000, 2), even(1000, 3)
    (524288, 334)
    """
    each = -(-rows // count)
    return each if each <= parquet.GROUP_ROWS else -(-each // parquet.GROUP_ROWS) * parquet.GROUP_ROWS


def shards(rows: Mapping[str, int], most: int) -> tuple[Shard, ...]:
    """Partitions in order, together as long as they have no more than `most` rows; a larger one is cut evenly, and
    between row groups of its file if `most` is as large as one.

    >>> [(shard.partitions, shard.start, shard.rows) for shard in shards({"a": 2, "b": 3, "c": 9}, 5)]
    [(('a', 'b'), 0, None), (('c',), 0, 5), (('c',), 5, 4)]
    >>> [(shard.start, shard.rows) for shard in shards({"d": 1_000_000}, 600_000)]
    [(0, 524288), (524288, 475712)]
    """
    found: list[Shard] = []
    group: list[str] = []
    held = 0
    unit = parquet.GROUP_ROWS if most >= parquet.GROUP_ROWS else 1

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
        pieces = -(-count // (most // unit * unit))
        size = -(-count // (pieces * unit)) * unit
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
    scorer = agreeing(Scorer.load(spec, store, resolved, registry.fetch(resolved.model)))
    unseen: dict[str, dict[str, float]] = {}

    def drafts() -> Iterator[Draft]:
        for partition, rows in by_partition(scorer, split(resolved, Shard(partitions=resolved.due))):
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
    scorer = agreeing(Scorer.load(spec, store, resolved, artifact, threads))
    files = {}
    for partition, rows in by_partition(scorer, split(resolved, shard)):
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
    facts = read_facts(artifact, resolved.model.digest)
    files: dict[str, list[Path]] = {}
    for piece in sorted(pieces, key=lambda piece: _place(piece.shard)):
        for partition, path in piece.files.items():
            files.setdefault(partition, []).append(Path(path))
    unseen: dict[str, dict[str, float]] = {}
    drafts = (
        Draft(partition=partition, write=partial(merge, spec, files[partition], unseen.setdefault(partition, {})))
        for partition in resolved.due
    )
    return _scored(resolved, store.stage(PREDICTIONS, drafts, run), threshold(facts), unseen)


def _place(shard: Shard) -> tuple[str, int, int]:
    return shard.partitions[0], shard.start, shard.rows or 0


def _scored(
    resolved: ScorePlan, staged: Sequence[StagedPartition], threshold: float | None, unseen: dict[str, dict[str, float]]
) -> Scored:
    known = {name: getattr(resolved, name) for name in ScorePlan.model_fields}
    return Scored(**known, staged=tuple(staged), threshold=threshold, unseen=unseen)
