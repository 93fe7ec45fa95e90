"""Erase: every row of one subject, in every table and version, and what else was made of them.

    find    the rows that ever carried the value, and their keys, in all that is still stored
    rewrite the newest snapshot without them: staged, audited, published as an `erase` commit
    clean   what is staged, quarantine, report pages, training sets, cached copies
    purge   every file, of any snapshot, that held them; a tombstone says that they are gone, not whose they were
    look    again, until nothing is found

The keys are only known from the rows that have the value, so those files are purged last: a run that died anywhere is
finished by the same command. Nothing that is written names the subject.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from pipelines.errors import NotFoundError, SpecError, UnavailableError, explain
from pipelines.failpoints import failpoint
from pipelines.ports import DataSource, ModelRegistry, SnapshotStore
from pipelines.records import (
    ErasedTable,
    Erasure,
    PublishedPartition,
    Quarantined,
    RunInfo,
    Tombstone,
)
from pipelines.spec import UseCase
from pipelines.steps.erasing import files
from pipelines.steps.erasing.effects import trained_on, unreplayable
from pipelines.steps.erasing.files import Places
from pipelines.steps.erasing.rewrite import rewrite
from pipelines.steps.erasing.subject import Subject, parse_subject
from pipelines.steps.erasing.traces import MARK, Traces
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.provenance import Books, Part

__all__ = ["Places", "erase", "parse_subject"]

#: Looks after which a use case that others keep writing to is given up on.
_ROUNDS = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Hit:
    """A stored file that holds the subject."""

    part: PublishedPartition
    rows: int
    """How many of its rows are the subject's."""
    live: bool
    """Whether the newest snapshot names it."""


@dataclass(kw_only=True, slots=True)
class _Findings:
    """Everything that was found, in all looks together."""

    hits: dict[str, dict[Part, Hit]] = field(default_factory=dict)
    entries: dict[tuple[str, str, str], tuple[Quarantined, str]] = field(default_factory=dict)
    paths: dict[Path, None] = field(default_factory=dict)
    swept: dict[str, None] = field(default_factory=dict)

    def add(self, table: str, hits: Sequence[Hit]) -> None:
        for hit in hits:
            known = self.hits.setdefault(table, {})
            known.setdefault(_part(table, hit.part), hit)

    @property
    def erased(self) -> set[Part]:
        return {_part(table, hit.part) for table, hits in self.hits.items() for hit in hits.values()}

    def tables(self) -> tuple[ErasedTable, ...]:
        return tuple(
            ErasedTable(
                table=table,
                rows=sum(hit.rows for hit in hits.values() if hit.live),
                partitions=tuple(sorted(hit.part.partition for hit in hits.values() if hit.live)),
                files=len(hits),
            )
            for table, hits in self.hits.items()
        )


def erase(
    spec: UseCase,
    store: SnapshotStore,
    source: DataSource,
    registry: ModelRegistry,
    subject: Subject,
    places: Places,
    run: RunInfo,
    *,
    reason: str,
    act: bool,
) -> Erasure:
    """Removes a subject's rows for good, or only says where they are.

    Args:
        subject: what `parse_subject` read.
        reason: kept in commits and tombstones; it may not name the subject.
        act: False changes nothing.

    Raises:
        SpecError: the reason is empty, or names the subject.
        UnavailableError: other runs kept publishing the subject's rows; run it again.
    """
    began = datetime.now(UTC)
    traces = Traces(spec, subject)
    if not reason.strip() or traces.names(reason):
        what = "the reason names the subject" if reason.strip() else "there is no reason"
        raise SpecError(
            explain(f"{spec.name}: erasure", what, allowed="words that are kept for good, such as a ticket")
        )
    name = secrets.token_hex(8)
    found = _Findings()
    for round_ in range(_ROUNDS):
        traces = _followed(spec, store, traces)
        hits = {table: look(store, traces, table) for table in _tables(spec) if traces.columns(table)}
        hits = {table: each for table, each in hits.items() if each}
        if round_ and not hits:
            break
        for table, each in hits.items():
            found.add(table, each)
        if act:
            for table in hits:
                rewrite(spec, store, traces, table, run, erasure=name, reason=reason)
        found.swept.update(dict.fromkeys(store.sweep(began, dry_run=not act)))
        _clean(spec, store, traces, places, found, act=act)
        if not act:
            break
        for table in _purge_order(spec, traces, hits):
            _purge(store, table, hits[table], run, name=f"{name}-{table}", reason=reason)
    else:
        raise UnavailableError(
            explain(
                f"{spec.name}: erasure",
                "other runs keep publishing rows of the subject",
                remedy="pause the use case's DAGs, and run it again",
            )
        )
    # A repeat, after a run that died at the very end too, finds nothing: it speaks of what was erased before.
    books = Books(spec=spec, store=store, registry=registry)
    erased = found.erased or {part for part, told in books.tombstones.items() if told.kind == "erased"}
    models = trained_on(books, traces, erased)
    if act:
        for model in models:
            registry.annotate(model.run_id, {"overnight.erased": "some of the training data"})
    changed = bool(found.hits or found.entries or found.paths)
    return Erasure(
        use_case=spec.name,
        column=subject.column,
        id=name if act and changed else None,
        done=act,
        tables=found.tables(),
        staged=tuple(found.swept),
        quarantined=tuple(f"{e.table}/{e.partition}: {why}" for e, why in found.entries.values()),
        files=tuple(str(path) for path in found.paths),
        models=models,
        unreplayable=unreplayable(books, erased),
        remains=(
            *files.landing_with(spec, source, traces),
            *files.notes_with(spec, store, traces),
            *files.handed_over(spec, store),
        ),
    )


def _part(table: str, held: PublishedPartition) -> Part:
    """What tells a file from others: two partitions may hold the same bytes."""
    return Part(table=table, partition=held.partition, digest=held.digest)


def _tables(spec: UseCase) -> tuple[str, ...]:
    """Predictions last: their erase commit is of inputs that are rewritten already."""
    return (*spec.tables, PREDICTIONS)


def _purge_order(spec: UseCase, traces: Traces, hits: Mapping[str, object]) -> list[str]:
    """Those from which keys are known, last."""
    return sorted(hits, key=lambda table: table in spec.tables and traces.has_value(table) and traces.has_key(table))


def _followed(spec: UseCase, store: SnapshotStore, traces: Traces) -> Traces:
    """Adds the keys of every row, in any stored version, that has the value."""
    column, key = traces.subject.column, list(spec.rows.key)
    for table in spec.tables:
        if traces.has_value(table) and traces.has_key(table):
            for _, _, rows in _stored(store, traces, table):
                own = rows.filter(pl.col(column) == pl.lit(traces.subject.values[table]))
                traces = traces.with_keys(own.select("partition", *key).collect())
    return traces


def look(store: SnapshotStore, traces: Traces, table: str) -> list[Hit]:
    """Every stored file of a table that holds the subject, whichever snapshots name it."""
    hits = []
    for parts, live, rows in _stored(store, traces, table):
        counts = traces.marked(table, rows).filter(pl.col(MARK)).group_by("partition").len("rows").collect()
        hits += [Hit(part=parts[name], rows=count, live=live) for name, count in counts.sort("partition").iter_rows()]
    return hits


def _stored(
    store: SnapshotStore, traces: Traces, table: str
) -> Iterator[tuple[dict[str, PublishedPartition], bool, pl.LazyFrame]]:
    """What a table has stored, the newest snapshot in one scan and every other file by itself.

    Yields:
        The files by partition, whether the newest snapshot names them, and their rows: what `marked` looks at.
    """
    wanted = traces.columns(table)
    head = store.head(table)
    live = store.partitions(head) if head is not None else {}
    if head is not None and (chosen := [name for name in live if traces.may_hold(table, name)]):
        yield live, True, store.scan(head, chosen, wanted)
    for part in store.held(table):
        if live.get(part.partition) == part or not traces.may_hold(table, part.partition):
            continue
        try:
            rows = store.read_held(table, part).select(wanted)
        except NotFoundError:  # another erasure, or the collector, was faster
            continue
        yield {part.partition: part}, False, rows.with_columns(pl.lit(part.partition).alias("partition"))


def _clean(spec: UseCase, store: SnapshotStore, traces: Traces, places: Places, found: _Findings, *, act: bool) -> None:
    """Quarantine, pages, training sets and copies."""
    entries = files.quarantined_with(spec, store, traces)
    digests = {part.digest for part in found.erased}
    paths = [
        *files.pages_with(spec, traces, places, [entry for entry, _ in entries]),
        *files.copies_with(spec, traces, places, digests),
    ]
    found.entries.update({(e.table, e.partition, e.report.digest): (e, why) for e, why in entries})
    found.paths.update(dict.fromkeys(paths))
    if not act:
        return
    for path in paths:
        files.remove(path)
    for entry, _ in entries:
        store.expunge(entry, files.cleaned(entry.report))
    failpoint("erase.cleaned")


def _purge(store: SnapshotStore, table: str, hits: Sequence[Hit], run: RunInfo, *, name: str, reason: str) -> None:
    """Removes the files of a table that held the subject, but for any that was published again meanwhile."""
    head = store.head(table)
    live = {_part(table, each) for each in store.partitions(head).values()} if head is not None else set()
    parts = {part: hit.part for hit in hits if (part := _part(table, hit.part)) not in live}
    for told in store.tombstones():
        gone = {_part(told.table, each) for each in told.parts}
        if told.table == table and told.kind == "erased" and gone & parts.keys() and not gone & live:
            store.purge(told)  # of a run that died: it is finished under its own name
            parts = {part: held for part, held in parts.items() if part not in gone}
    if parts:
        store.purge(
            Tombstone(
                id=name,
                kind="erased",
                table=table,
                parts=tuple(parts.values()),
                reason=reason,
                run=run,
                at=datetime.now(UTC),
            )
        )
    failpoint("erase.purged")
