"""Snapshots as people handle them: named, compared, brought back, kept, and collected when nobody needs them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta

from pipelines.errors import IntegrityError, NotFoundError, TerminalError, explain
from pipelines.ports import ModelRegistry, SnapshotStore
from pipelines.records import (
    CollectedTable,
    Collection,
    Commit,
    Kept,
    Pin,
    Publication,
    PublishedPartition,
    RunInfo,
    SnapshotDiff,
    SnapshotRef,
    Tombstone,
)
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.promotions import PROMOTIONS
from pipelines.steps.provenance import LOGS, snapshots_of

HEAD = "head"
NAMES = "head, a version, a snapshot's id, a pin's name, or a date or time (UTC) such as 2026-11-03 or 2026-11-03T06:30"
#: What dead runs left is swept when it is older than this: a run that lives writes to its own until it ends.
LIVE = timedelta(days=1)
#: Shorter beginnings of a commit's id name nothing.
_SHORTEST = 7
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}.*")
_VERSION = re.compile(r"[0-9a-f]{1,64}")


def resolve(store: SnapshotStore, table: str, name: str) -> SnapshotRef:
    """The snapshot that a name stands for.

    Args:
        name: `head`; a version, or the beginning (7 or more) of a long one; a full id; a pin's name; or a date or a
            time, "as of then": the newest commit at or before it by the store's clock. A bare date means its end, a
            time without a zone is UTC.

    Raises:
        NotFoundError: it stands for nothing, or for a snapshot of another table.
    """
    head = store.head(table)
    if head is None:
        raise NotFoundError(explain(f"snapshots of {table}", "nothing was ever published", remedy="ingest it first"))
    if name == HEAD:
        return head
    if ":" in name and "@" in name:
        return _existing(store, _of(table, SnapshotRef.parse(name)))
    instant = _instant(name)
    if instant is not None:
        return _as_of(store, table, instant)
    if _VERSION.fullmatch(name) and (found := _version(store, head, name)) is not None:
        return found
    for pin in store.pins():
        if pin.name == name:
            return _of(table, pin.snapshot)
    raise NotFoundError(explain(f"snapshots of {table}", f"{name!r} stands for none of them", allowed=NAMES))


def _version(store: SnapshotStore, head: SnapshotRef, name: str) -> SnapshotRef | None:
    versions = [commit.snapshot for commit in store.history(head.table)]
    if found := [ref for ref in versions if ref.version == name]:
        return found[0]
    begins = [ref for ref in versions if len(name) >= _SHORTEST and ref.version.startswith(name)]
    if len(begins) > 1:
        raise NotFoundError(explain(f"snapshots of {head.table}", f"{len(begins)} versions begin with {name!r}"))
    if begins:
        return begins[0]
    try:  # a snapshot that no commit of this table made, such as another table's commit in the same repository
        return _existing(store, head.model_copy(update={"version": name}))
    except NotFoundError:
        return None


def _of(table: str, ref: SnapshotRef) -> SnapshotRef:
    if ref.table != table:
        raise NotFoundError(explain(ref.id, f"it is a snapshot of {ref.table}", allowed=f"snapshots of {table}"))
    return ref


def _existing(store: SnapshotStore, ref: SnapshotRef) -> SnapshotRef:
    store.partitions(ref)
    return ref


def _instant(name: str) -> datetime | None:
    """The last instant that a date or time means; None when it is neither."""
    try:
        if _DAY.fullmatch(name):
            after = date.fromisoformat(name) + timedelta(days=1)
            return datetime(after.year, after.month, after.day, tzinfo=UTC) - timedelta.resolution
        if _TIME.fullmatch(name):
            said = datetime.fromisoformat(name)
            return said.replace(tzinfo=UTC) if said.tzinfo is None else said.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    return None


def _as_of(store: SnapshotStore, table: str, instant: datetime) -> SnapshotRef:
    history = store.history(table)
    for commit in history:
        if commit.at <= instant:
            return commit.snapshot
    oldest = f"the oldest snapshot is of {history[-1].at.isoformat()}" if history else "there is no commit"
    raise NotFoundError(explain(f"snapshots of {table}", f"none as of {instant.isoformat()}: {oldest}"))


def diff(store: SnapshotStore, before: SnapshotRef, after: SnapshotRef) -> SnapshotDiff:
    """What changed from one snapshot of a table to another.

    Raises:
        NotFoundError: one of them does not exist, or they are of different tables.
    """
    old, new = store.partitions(_of(after.table, before)), store.partitions(after)
    return SnapshotDiff(
        before=before,
        after=after,
        added=tuple(part for key, part in new.items() if key not in old),
        removed=tuple(part for key, part in old.items() if key not in new),
        replaced=tuple((old[key], part) for key, part in new.items() if key in old and old[key].digest != part.digest),
    )


def revert(store: SnapshotStore, to: SnapshotRef, run: RunInfo, *, reason: str) -> Publication:
    """Makes a table hold what an earlier snapshot held; see the port.

    Raises:
        TerminalError: the table is a log: what was decided cannot become undecided.
    """
    if to.table in LOGS:
        remedy = "roll the champion back with `overnight rollback`" if to.table == PROMOTIONS else None
        raise TerminalError(
            explain(f"{to.use_case}/{to.table}", "an append-only log is never reverted", allowed="data", remedy=remedy)
        )
    return store.revert(to, run, reason=reason)


def pin(store: SnapshotStore, name: str, snapshot: SnapshotRef, *, reason: str) -> Pin:
    """Keeps a snapshot under a name; see the port.

    Raises:
        NotFoundError: the name could be taken for a version or a date.
    """
    if name == HEAD or _VERSION.fullmatch(name) or _DAY.fullmatch(name) or _TIME.fullmatch(name):
        raise NotFoundError(
            explain("pin", f"{name!r} reads like a version or a date", allowed="words, such as before-the-move")
        )
    return store.pin(name, snapshot, reason=reason)


def kept(store: SnapshotStore, registry: ModelRegistry, tables: Sequence[str], since: datetime) -> list[Kept]:
    """The snapshots that must never be collected, with the reasons.

    Those are: every head; every pinned snapshot; what was visible at `since` or later; what the training of a
    registered model version names; and what the predictions in any of these snapshots were made from.
    """
    reasons: dict[SnapshotRef, list[str]] = {}
    # What predictions were made from is kept whether or not their own table is asked about.
    looked_at = dict.fromkeys((*tables, PREDICTIONS))
    heads = {table: head for table in looked_at if (head := store.head(table)) is not None}

    def keep(ref: SnapshotRef, reason: str) -> None:
        # A registry may name snapshots of the store that the use case was kept in before.
        if ref.table in heads and ref.store == heads[ref.table].store and reason not in reasons.setdefault(ref, []):
            reasons[ref].append(reason)

    for held in store.pins():
        keep(held.snapshot, f"pin {held.name}")
    for table, head in heads.items():
        keep(head, "head")
        for commit in _visible(store.history(table), since):
            keep(commit.snapshot, f"visible since {since.isoformat()}")
    for training in registry.trainings():
        if training.model is not None:
            for ref in snapshots_of(training):
                keep(ref, f"model {training.model.id}")
    for ref, partitions in _inputs(store, [ref for ref in reasons if ref.table == PREDICTIONS]).items():
        keep(ref, f"predictions {partitions[0]}" + (f" and {len(partitions) - 1} more" if partitions[1:] else ""))
    found = [Kept(snapshot=ref, reasons=tuple(why)) for ref, why in sorted(reasons.items(), key=_by_id)]
    return [entry for entry in found if entry.snapshot.table in tables]


def _visible(history: Sequence[Commit], since: datetime) -> Iterator[Commit]:
    """The commits that were the newest at some time since then."""
    # A clock of whole seconds leaves open when within its second a commit came.
    whole = all(commit.at.microsecond == 0 for commit in history)
    for commit in history:
        yield commit
        if commit.at + timedelta(seconds=whole) < since:
            return  # it was the newest at that instant


def _by_id(item: tuple[SnapshotRef, object]) -> str:
    return item[0].id


def _inputs(store: SnapshotStore, predictions: Sequence[SnapshotRef]) -> dict[SnapshotRef, list[str]]:
    """The snapshots that the predictions in these snapshots name, each with their partitions."""
    wanted = {(part.partition, part.digest) for ref in predictions for part in store.partitions(ref).values()}
    found: dict[SnapshotRef, list[str]] = {}
    for commit in store.history(PREDICTIONS):
        mine = [item for item in commit.partitions.items() if item in wanted]
        for name in commit.provenance.get("snapshots", []) if mine else []:
            found.setdefault(SnapshotRef.parse(name), []).extend(partition for partition, _ in mine)
    return {ref: sorted(set(partitions)) for ref, partitions in found.items()}


def collect(
    store: SnapshotStore,
    registry: ModelRegistry,
    tables: Sequence[str],
    keep_since: datetime,
    run: RunInfo,
    *,
    dry_run: bool = True,
    now: datetime,
) -> Collection:
    """Removes partition files that no kept snapshot names, and what dead runs left. Never a row that is read.

    A publish or a revert may make bytes current again that nobody named before. So what is kept is looked up anew
    right before each table's bytes are removed, and once more afterwards: should another run have brought the same
    bytes back in between, that is said, not passed over. What a kept snapshot named when the call began is safe
    whatever runs beside it.

    Args:
        tables: every table of the use case.
        keep_since: whatever was visible at this instant or later stays.
        dry_run: say what would go, and change nothing.
        now: the present; nothing younger than `LIVE` is swept.

    Raises:
        IntegrityError: a run brought removed bytes back while they were being removed.
    """
    done = []
    for table in tables:
        garbage, stay = _garbage(store, registry, table, keep_since)
        if garbage and not dry_run:
            store.purge(_tombstone(table, garbage, keep_since, run, now))
            _check(store, registry, table, garbage, keep_since)
        done.append(CollectedTable(table=table, parts=garbage, kept=stay))
    swept = store.sweep(min(keep_since, now - LIVE), dry_run=dry_run)
    return Collection(dry_run=dry_run, keep_since=keep_since, tables=tuple(done), swept=tuple(swept))


def _garbage(
    store: SnapshotStore, registry: ModelRegistry, table: str, since: datetime
) -> tuple[tuple[PublishedPartition, ...], int]:
    """The table's files that no kept snapshot names, and the number of those that stay."""
    files = store.held(table)  # first: what is published from now on is not among them
    named = _named(store, registry, table, since)
    garbage = tuple(part for part in files if (part.partition, part.digest) not in named)
    return garbage, len(files) - len(garbage)


def _named(store: SnapshotStore, registry: ModelRegistry, table: str, since: datetime) -> set[tuple[str, str]]:
    """Every partition's bytes that a kept snapshot of the table names."""
    refs = [entry.snapshot for entry in kept(store, registry, [table], since)]
    return {(part.partition, part.digest) for ref in refs for part in store.partitions(ref).values()}


def _check(
    store: SnapshotStore,
    registry: ModelRegistry,
    table: str,
    removed: Sequence[PublishedPartition],
    since: datetime,
) -> None:
    named = _named(store, registry, table, since)
    there = {(part.partition, part.digest) for part in store.held(table)}
    lost = [part.partition for part in removed if (key := (part.partition, part.digest)) in named and key not in there]
    if lost:
        raise IntegrityError(
            explain(
                table,
                f"another run brought back what was being collected: {', '.join(sorted(lost))}",
                remedy="publish those bytes again (run the partition again), or revert to a snapshot that reads",
            )
        )


def _tombstone(
    table: str, parts: tuple[PublishedPartition, ...], since: datetime, run: RunInfo, now: datetime
) -> Tombstone:
    """The same garbage gives the same id, so that a collection that was cut short goes on where it stopped."""
    content = " ".join([table, *sorted(f"{part.partition}={part.digest}" for part in parts)])
    return Tombstone(
        id=f"collected-{table}-{hashlib.sha256(content.encode()).hexdigest()[:12]}",
        kind="collected",
        table=table,
        parts=parts,
        reason=f"no snapshot since {since.isoformat()} and nothing that is kept names them",
        run=run,
        at=now,
    )
