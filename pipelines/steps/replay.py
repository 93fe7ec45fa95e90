"""`replay`: a prediction partition scored again from what its commit recorded, and compared byte for byte."""

from __future__ import annotations

import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from pipelines.errors import IntegrityError, NotFoundError, RemovedError, explain
from pipelines.parquet import digest as digest_of_file
from pipelines.parquet import write
from pipelines.ports import ModelRegistry, SnapshotStore
from pipelines.records import Replay, RunInfo, ScorePlan
from pipelines.spec import UseCase
from pipelines.steps.predictions import DECISION, PREDICTIONS, SNAPSHOT, score_columns
from pipelines.steps.provenance import Books, Part, Scoring
from pipelines.steps.scorer import Scorer, write_partition

_SHOWN = 5


def replay(spec: UseCase, store: SnapshotStore, registry: ModelRegistry, partition: str, run: RunInfo) -> Replay:
    """Scores a partition again from the recorded snapshots and model version; nothing is published.

    Args:
        spec: the use case as it is now; when it changed since, that is among the differences.
        store: holds the predictions and what they were made from.
        registry: holds the model.
        partition: of the predictions, as readers see them now.
        run: who asks; its code version is compared with the recorded one.

    Raises:
        NotFoundError: there are no such predictions, their model is not registered, or nothing was recorded.
        IntegrityError: the model is not the one that was recorded.
    """
    head = store.head(PREDICTIONS)
    held = store.partitions(head) if head is not None else {}
    where = f"{spec.name}/{PREDICTIONS}/{partition}"
    if head is None or partition not in held:
        raise NotFoundError(explain(where, "there are no such predictions", remedy="score the partition first"))
    books = Books(spec=spec, store=store, registry=registry)
    part = Part(table=PREDICTIONS, partition=partition, digest=held[partition].digest)
    scoring = books.scoring(part)
    if scoring is None:
        raise NotFoundError(explain(where, "nothing is recorded of the model and the snapshots that made it"))
    told: dict[str, Any] = {
        "partition": partition,
        "snapshot": head,
        "model": f"{spec.name}@{scoring.version}",
        "inputs": tuple(ref.id for ref in scoring.snapshots.values()),
        "published": part.digest,
    }
    if gone := _gone(books, scoring):
        return Replay(**told, replayed=None, outcome=gone[0], differences=gone[1])
    try:
        published = store.read_held(PREDICTIONS, held[partition]).collect()
        digest, frame = _score(spec, store, registry, scoring, published)
    except RemovedError as error:
        kinds = {stone.kind for stone in store.tombstones() if stone.id in str(error)}
        kind = "collected" if kinds == {"collected"} else "erased"
        return Replay(**told, replayed=None, outcome=kind, differences=(str(error),))
    if digest == part.digest:
        return Replay(**told, replayed=digest, outcome="identical")
    worst, differences = compare(spec, published, frame)
    return Replay(
        **told,
        replayed=digest,
        outcome="different",
        differences=(*differences, *_changed_since(spec, scoring, run)),
        max_score_difference=worst,
    )


def _gone(books: Books, scoring: Scoring) -> tuple[str, tuple[str, ...]] | None:
    """Why it cannot be replayed byte for byte: what it read, or rows of it, were erased or collected."""
    parts = [part for part in (*scoring.read, scoring.part) if part in books.tombstones]
    reasons = [f"{part.table}/{part.partition} (tombstone {books.tombstones[part].id})" for part in parts]
    if scoring.commit.kind == "erase":
        reasons.insert(0, f"rows of {scoring.part.partition} itself ({scoring.commit.snapshot.id})")
        return "erased", tuple(reasons)
    missing = [part for part in parts if not _stored(books, part)]
    if not missing:
        return None
    kinds = {books.tombstones[part].kind for part in missing}
    return "erased" if "erased" in kinds else "collected", tuple(reasons)


def _stored(books: Books, part: Part) -> bool:
    """Bytes that were removed may have been published again since."""
    return any((held.partition, held.digest) == (part.partition, part.digest) for held in books.store.held(part.table))


def _score(
    spec: UseCase, store: SnapshotStore, registry: ModelRegistry, scoring: Scoring, published: pl.DataFrame
) -> tuple[str, pl.DataFrame]:
    """The digest of a file that is written like the published one, and its rows."""
    model, partition = registry.get(scoring.version), scoring.part.partition
    if scoring.artifact and model.digest != scoring.artifact:
        raise IntegrityError(
            explain(model.id, f"its artifact is {model.digest}, the predictions were made by {scoring.artifact}")
        )
    told = scoring.commit.provenance
    at = datetime.fromisoformat(told["scored_at"]) if "scored_at" in told else None
    resolved = ScorePlan(
        model=model,
        inputs=tuple(scoring.snapshots.values()),
        rows_in={partition: published.height},
        fingerprints={},
        homes={partition: told["predictions"][partition].get("home", "")},
        run=scoring.commit.run.model_copy(update={"at": at}),
    )
    scorer = Scorer.load(spec, store, resolved, registry.fetch(model)).like(published.schema)
    with tempfile.TemporaryDirectory(prefix="overnight-replay-") as scratch:
        path = Path(scratch) / "predictions.parquet"
        write_partition(scorer, partition, path)
        frame = pl.read_parquet(path)
        if SNAPSHOT in published.columns:
            return digest_of_file(path), frame
        # What was published before there were such columns was written in one piece, without notes.
        frame = frame.select(name for name in frame.columns if name in published.columns)
        return write(frame, path), frame


def compare(spec: UseCase, published: pl.DataFrame, replayed: pl.DataFrame) -> tuple[float | None, list[str]]:
    """The largest difference of a score, over keys that both hold, and what differs in words.

    Args:
        spec: says which columns are keys and which are scores.
        published: without a `partition` column, as `replayed`.
        replayed: what came out now.
    """
    found = []
    if published.schema != replayed.schema:
        found.append(f"columns: published {_columns(published)}; replayed {_columns(replayed)}")
    if published.height != replayed.height:
        found.append(f"rows: published {published.height}, replayed {replayed.height}")
    key = list(spec.rows.key)
    for name, one, other in (("published", published, replayed), ("replayed", replayed, published)):
        only = one.join(other, on=key, how="anti")
        if only.height:
            shown = ", ".join("|".join(map(str, row)) for row in only.select(key).head(_SHOWN).rows())
            found.append(f"keys only {name}: {only.height} ({shown}{', ...' if only.height > _SHOWN else ''})")
    names = [name for name in score_columns(spec) if name in published.columns and name in replayed.columns]
    both = published.join(replayed, on=key, how="inner", suffix="__replayed")
    worst = None
    if names and both.height:
        gaps = both.select((pl.col(name) - pl.col(f"{name}__replayed")).abs() for name in names)
        largest = gaps.select(pl.max_horizontal(pl.all().max())).item()
        worst = None if largest is None else float(largest)
        moved = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}__replayed")) for name in names)
        if changed := both.filter(moved).height:
            by = f", by at most {worst:.3g}" if worst is not None else ""
            found.append(f"scores: {changed} of {both.height} differ{by}")
    if DECISION in published.columns and DECISION in replayed.columns:
        turned = both.filter(pl.col(DECISION).ne_missing(pl.col(f"{DECISION}__replayed"))).height
        if turned:
            found.append(f"decisions: {turned} of {both.height} differ")
    if not found:
        found.append("the rows are equal; their order or the file's encoding differs")
    return worst, found


def _columns(frame: pl.DataFrame) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in frame.schema.items())


def _changed_since(spec: UseCase, scoring: Scoring, run: RunInfo) -> list[str]:
    """What may be the reason."""
    found = []
    before = scoring.commit.provenance.get("spec")
    if before and before != spec.digest:
        found.append(f"the spec changed since: {before[:12]} then, {spec.digest[:12]} now")
    then = scoring.commit.run.code_version
    if then != run.code_version:
        found.append(f"the code changed since: {then} then, {run.code_version} now")
    return found
