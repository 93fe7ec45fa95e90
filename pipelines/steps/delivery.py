"""Deliver: hands published predictions to whoever the spec says, once.

A delivery gets what is published when it is asked for, and looks again afterwards: where another run published a
partition anew meanwhile, that is handed over too. So of several runs, in any order, the last one to write anywhere has
seen the newest rows, and a retry of an old run never puts old rows in the place of new ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import polars as pl

from pipelines.errors import NotFoundError, OvernightError, SpecError, TransientError, UnavailableError, explain
from pipelines.ports import Consignment, Sink, SnapshotStore
from pipelines.records import (
    Commit,
    Delivered,
    DeliveryEntry,
    Prediction,
    PublishedPartition,
    RunInfo,
    SnapshotRef,
)
from pipelines.spec import Delivery, UseCase
from pipelines.steps.deliveries import latest, note
from pipelines.steps.predictions import PREDICTIONS, published_predictions

#: Rows that are on their way at once.
_BATCH_ROWS = 65_536
#: Looks at what is published, after which a use case that others keep publishing is given up on.
_ROUNDS = 5


def chosen(spec: UseCase, run: RunInfo, only: str | None = None) -> tuple[Delivery, ...]:
    """The deliveries that a run makes.

    Args:
        only: this one, by name, whatever kind of run it is.

    Raises:
        SpecError: there is no delivery of this name.
    """
    if only is None:
        return tuple(one for one in spec.delivery if one.backfills or not run.backfill)
    found = tuple(one for one in spec.delivery if one.name == only)
    if not found:
        allowed = ", ".join(one.name for one in spec.delivery) or "the spec has none"
        raise SpecError(explain(f"{spec.name}: delivery", f"there is none named {only!r}", allowed=allowed))
    return found


def deliver(
    spec: UseCase,
    store: SnapshotStore,
    sinks: Mapping[str, Sink],
    predictions: Sequence[Prediction],
    run: RunInfo,
) -> tuple[Delivered, ...]:
    """Hands the partitions of these predictions over, as they are published now.

    A delivery that fails does not keep the others from theirs; its error is raised in the end.

    Args:
        sinks: by delivery, those that get something; see `chosen`.

    Returns:
        One record a delivery and partition.

    Raises:
        NotFoundError: predictions are no longer published. RemovedError: they were erased meanwhile.
        SpecError: a delivery names a column that there is not.
        UnavailableError, ServiceRefused, SchemaMismatch: see `Sink.deliver`.
    """
    partitions = sorted({one.partition for one in predictions})
    done: list[Delivered] = []
    failed: list[OvernightError] = []
    for delivery in spec.delivery:
        if delivery.name not in sinks or not partitions:
            continue
        try:
            done += _to_one(spec, store, delivery, sinks[delivery.name], partitions, run)
        except OvernightError as error:
            failed.append(error)
    if failed:  # a retry is worth it while any of them may succeed
        raise next((error for error in failed if isinstance(error, TransientError)), failed[0])
    return tuple(done)


def _to_one(
    spec: UseCase, store: SnapshotStore, delivery: Delivery, sink: Sink, partitions: Sequence[str], run: RunInfo
) -> list[Delivered]:
    done: dict[str, Delivered] = {}
    handed: dict[str, str] = {}
    for _ in range(_ROUNDS):
        now = Published(store)
        due = [name for name in partitions if handed.get(name) != now.part(name).digest]
        if not due:
            return [done[name] for name in partitions]
        told = latest(store, delivery.name, due)
        for name in due:
            last = told.get(name)
            consignment = consign(spec, now, delivery, name, run, before=None if last is None else last.delivered.key)
            given = sink.deliver(consignment)
            done[name], handed[name] = given, now.part(name).digest
            prediction = consignment.prediction
            entry = DeliveryEntry(
                delivered=given,
                number=1,
                digest=prediction.digest,
                model_version=prediction.model_version,
                snapshot=prediction.snapshot.id,
                run=run,
            )
            note(store, spec.name, entry, told)
    what = "other runs keep publishing the same partitions"
    raise UnavailableError(explain(f"{spec.name}: delivery {delivery.name}", what, remedy="run it again"))


class Published:
    """The predictions as they are published at one moment."""

    def __init__(self, store: SnapshotStore) -> None:
        """Looks."""
        self.store = store
        self.head = store.head(PREDICTIONS)
        self.held = store.partitions(self.head) if self.head is not None else {}

    def part(self, partition: str) -> PublishedPartition:
        """A partition.

        Raises:
            NotFoundError: it is not published.
        """
        if partition not in self.held:
            where = f"{PREDICTIONS}/{partition}"
            raise NotFoundError(explain(where, "there are no such predictions", remedy="score the partition first"))
        return self.held[partition]

    def rows(self, partition: str) -> pl.LazyFrame:
        """Its rows, exactly the columns that its file has.

        Raises:
            RemovedError: they were erased.
        """
        return self.store.read_held(PREDICTIONS, self.part(partition))

    def prediction(self, partition: str) -> Prediction:
        """What is recorded of a partition; the snapshot is the first that held these bytes."""
        part, commit = self.part(partition), self._first(partition)
        return Prediction(
            partition=partition,
            model_version=self._model(partition),
            inputs=tuple(SnapshotRef.parse(name) for name in commit.provenance.get("snapshots", ())),
            rows_in=part.rows,
            rows_scored=part.rows,
            digest=part.digest,
            state="unchanged",
            snapshot=commit.snapshot,
        )

    @cached_property
    def schema(self) -> pl.Schema:
        """The columns of the table, and so of every partition once it is read through a snapshot."""
        assert self.head is not None
        return self.store.scan(self.head, []).drop("partition").collect_schema()

    @cached_property
    def _history(self) -> list[Commit]:
        return self.store.history(PREDICTIONS)

    @cached_property
    def _made(self) -> dict[str, dict[str, Any]]:
        return published_predictions(self.store)

    def _first(self, partition: str) -> Commit:
        """The oldest commit with these bytes: later ones may have the same, after a revert."""
        digest = self.part(partition).digest
        return next(commit for commit in reversed(self._history) if commit.partitions.get(partition) == digest)

    def _model(self, partition: str) -> int:
        if (told := self._made.get(partition, {}).get("model")) is not None:
            return int(told)
        # Nothing was recorded: each row says it.
        found = self.rows(partition).select("model_version").head(1).collect()
        return int(found.item()) if found.height else 0


def published(store: SnapshotStore, partitions: Sequence[str]) -> tuple[Prediction, ...]:
    """What is published of these partitions; one that is not is left out."""
    now = Published(store)
    return tuple(now.prediction(name) for name in partitions if name in now.held)


def key_of(use_case: str, delivery: Delivery, prediction: Prediction) -> str:
    """The idempotency key: SHA-256 of what decides the rows and how they are handed over.

    The target is no part of it, nor how long an answer may take: a moved database or folder knows what it holds.
    """
    how = delivery.model_dump(mode="json", exclude={"target", "backfills", "timeout"})
    what = [use_case, how, prediction.partition, prediction.digest, prediction.model_version]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def consign(
    spec: UseCase, now: Published, delivery: Delivery, partition: str, run: RunInfo, *, before: str | None = None
) -> Consignment:
    """Packs a partition for a delivery.

    Raises:
        SpecError: a column of the delivery is none of the predictions'.
    """
    prediction = now.prediction(partition)
    rows, wanted = _chosen_columns(spec, now, delivery, partition)
    return Consignment(
        use_case=spec.name,
        delivery=delivery.name,
        prediction=prediction,
        key=key_of(spec.name, delivery, prediction),
        rows=partial(_batches, rows),
        schema=wanted,
        run=run,
        before=before,
    )


def _chosen_columns(
    spec: UseCase, now: Published, delivery: Delivery, partition: str
) -> tuple[pl.LazyFrame, pl.Schema]:
    rows = now.rows(partition)
    there = rows.collect_schema()
    if not delivery.columns:
        return rows, there
    if stray := [name for name in delivery.columns if name not in there and name not in now.schema]:
        where = f"{spec.name}: delivery {delivery.name}: columns"
        what = f"not columns of the predictions: {', '.join(stray)}"
        raise SpecError(explain(where, what, allowed=", ".join(now.schema)))
    types = {name: there[name] if name in there else now.schema[name] for name in delivery.columns}
    # A partition from before the table had a column has none of its values.
    picked = [pl.col(name) if name in there else pl.lit(None, dtype=dtype).alias(name) for name, dtype in types.items()]
    return rows.select(picked), pl.Schema(types)


def _batches(rows: pl.LazyFrame) -> Iterator[pl.DataFrame]:
    yield from rows.collect_batches(chunk_size=_BATCH_ROWS, maintain_order=True, engine="streaming")
