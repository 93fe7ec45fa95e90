"""What is kept and what is removed for good: pins, tombstones, and the sweep of what dead runs left.

_pins/<name>.json           made once: of two runs that pin one name, the first wins
_tombstones/<id>.json       stored before the first byte goes
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from pipelines.backends.delta_files import FileStore, Stored
from pipelines.backends.delta_log import DeltaLog, Live, live, named_files
from pipelines.backends.delta_names import STAGING, checked_key, checked_table, data_path, is_data, staged_path
from pipelines.backends.delta_quarantine import unfinished
from pipelines.errors import ConflictError, NotFoundError, RemovedError, explain
from pipelines.failpoints import failpoint
from pipelines.records import Finding, Pin, PublishedPartition, SnapshotRef, Tombstone

_PINS, _TOMBSTONES = "_pins", "_tombstones"
_UNFINISHED = "unfinished_purge"
_CHECKPOINT = re.compile(r"[^/]+/_delta_log/([0-9]{20})\.checkpoint\.parquet")


class DeltaKeeper:
    """The part of `SnapshotStore` that keeps and removes. See the port for what each method promises."""

    def __init__(self, files: FileStore, log: DeltaLog, use_case: str) -> None:
        """Reads nothing."""
        self._files = files
        self._log = log
        self._use_case = use_case
        self._read: dict[Stored, Tombstone] = {}

    # -- pins --------------------------------------------------------------------------------------------------------

    def pin(self, name: str, snapshot: SnapshotRef, *, reason: str) -> Pin:  # noqa: D102
        path = f"{_PINS}/{checked_key(name, 'pin')}.json"
        self._log.at(snapshot)
        pin = Pin(name=name, snapshot=snapshot, reason=reason)
        if self._files.write(path, pin.model_dump_json(indent=2).encode(), new=True):
            return pin
        found = self._pin(path)
        if found is None or found.snapshot != snapshot:
            held = "changed at this moment" if found is None else f"pins {found.snapshot.id} ({found.reason})"
            raise ConflictError(explain(f"{self._use_case} pin {name}", f"it {held}", remedy="unpin it first"))
        return found

    def unpin(self, name: str) -> None:  # noqa: D102
        self._files.delete(f"{_PINS}/{checked_key(name, 'pin')}.json")

    def pins(self) -> list[Pin]:  # noqa: D102
        found = (self._pin(stored.path) for stored in self._files.below(_PINS))
        return sorted((pin for pin in found if pin is not None), key=lambda pin: pin.name)

    def _pin(self, path: str) -> Pin | None:
        try:
            return Pin.model_validate_json(self._files.read(path))
        except NotFoundError:  # unpinned in the meantime
            return None

    # -- removing for good -------------------------------------------------------------------------------------------

    def held(self, table: str) -> list[PublishedPartition]:  # noqa: D102
        there = {stored.path for stored in self._files.below(table)}
        named = sorted(self._named(table), key=lambda part: (part.partition, part.digest))
        return [part for part in named if f"{table}/{data_path(part.partition, part.digest)}" in there]

    def refuse_unheld(self, table: str, part: PublishedPartition) -> None:
        """Passes when these bytes are in the table's history and stored.

        Raises:
            NotFoundError: the table's history names no such bytes. RemovedError: they were removed.
        """
        where = f"{self._use_case}/{table}/{part.partition}"
        names = {(each.partition, each.digest) for each in self._named(table)}
        if (part.partition, part.digest) not in names:
            raise NotFoundError(explain(where, f"no snapshot of the table names {part.digest[:12]}"))
        self.refuse_removed(where, table, [part])
        if self._files.find(f"{table}/{data_path(part.partition, part.digest)}") is None:
            raise NotFoundError(
                explain(where, f"the published file {part.digest[:12]} is gone", remedy="restore it from a backup")
            )

    def refuse_removed(self, where: str, table: str, parts: Iterable[PublishedPartition | Live]) -> None:
        """Passes when none of the bytes is gone for good. Bytes that were published again since are back.

        Raises:
            RemovedError: a tombstone names some of them, and they are not there.
        """
        told = {(p.partition, p.digest): each for each in self.tombstones() if each.table == table for p in each.parts}
        for part in parts if told else ():
            tombstone = told.get((part.partition, part.digest))
            path = data_path(part.partition, part.digest)
            if tombstone is not None and self._files.find(f"{table}/{path}") is None:
                raise RemovedError(
                    explain(
                        where,
                        f"the bytes of {part.partition} were {tombstone.kind} on {tombstone.at:%Y-%m-%d} "
                        f"(tombstone {tombstone.id}: {tombstone.reason})",
                        remedy="read a newer snapshot",
                    )
                )

    def purge(self, tombstone: Tombstone) -> None:  # noqa: D102
        table = checked_table(tombstone.table)
        named = [(part, data_path(part.partition, part.digest)) for part in tombstone.parts]
        self._store(tombstone)
        failpoint("purge.told")
        for part, path in named:
            self._files.delete(f"{table}/{path}")
            if tombstone.kind == "erased":
                self._files.delete(staged_path(table, part.partition, part.digest))
            self._files.forget(part.digest)
            failpoint("purge.removed")

    def _store(self, tombstone: Tombstone) -> None:
        """Stores a tombstone before anything goes. A repeat that found less, or more, adds to what is stored."""
        path = f"{_TOMBSTONES}/{checked_key(tombstone.id, 'tombstone')}.json"
        if self._files.write(path, tombstone.model_dump_json(indent=2).encode(), new=True):
            return
        stored = Tombstone.model_validate_json(self._files.read(path))
        if (stored.table, stored.kind) != (tombstone.table, tombstone.kind):
            what = f"the id is taken by a tombstone of {stored.table} ({stored.kind})"
            raise ConflictError(explain(f"{self._use_case} tombstone {tombstone.id}", what))
        more = tuple(part for part in tombstone.parts if part not in stored.parts)
        if more:
            whole = stored.model_copy(update={"parts": stored.parts + more})
            self._files.write(path, whole.model_dump_json(indent=2).encode())

    def tombstones(self) -> list[Tombstone]:  # noqa: D102
        listed = list(self._files.below(_TOMBSTONES))
        for stored in listed:
            if stored not in self._read:
                self._read[stored] = Tombstone.model_validate_json(self._files.read(stored.path))
        return sorted((self._read[stored] for stored in listed), key=lambda each: (each.at, each.id))

    # -- sweeping ----------------------------------------------------------------------------------------------------

    def sweep(self, before: datetime, *, dry_run: bool = True) -> list[str]:  # noqa: D102
        swept = self._files.sweep(before, dry_run=dry_run)
        for stored in sorted(self._dead(before), key=lambda stored: stored.path):
            swept.append(self._files.uri(stored.path))
            if not dry_run:
                self._files.delete(stored.path)
        return swept

    def _dead(self, before: datetime) -> Iterator[Stored]:
        apart = (*self._files.below(STAGING), *unfinished(self._files))
        yield from (stored for stored in apart if stored.modified < before)
        for table in self._log.tables():
            # Listed before the log is read: what is committed in between counts as named.
            files = list(self._files.below(table))
            named = {f"{table}/{data_path(part.partition, part.digest)}" for part in self._named(table)}
            unnamed = [stored for stored in files if is_data(stored.path) and stored.path not in named]
            yield from (stored for stored in (*unnamed, *_replaced(files)) if stored.modified < before)

    def _named(self, table: str) -> set[PublishedPartition]:
        """Every partition file that any version of the table names."""
        return {
            PublishedPartition(partition=key, digest=digest, rows=commit.audits[key].rows)
            for commit in self._log.history(table)
            for key, digest in commit.partitions.items()
        }

    # -- health ------------------------------------------------------------------------------------------------------

    def examine(self) -> list[Finding]:  # noqa: D102
        findings = [self._unfinished(tombstone) for tombstone in self.tombstones() if self._left(tombstone)]
        for table in self._log.tables():
            findings += self._examine(table)
        return findings

    def repair(self, finding: Finding) -> None:  # noqa: D102
        for tombstone in self.tombstones():
            if self._left(tombstone) and self._unfinished(tombstone) == finding:
                self.purge(tombstone)
                return
        raise NotFoundError(explain(finding.where, f"{finding.name} cannot be mended, or is no longer so"))

    def _left(self, tombstone: Tombstone) -> bool:
        """Whether an erasure was cut short: bytes are still stored, and nobody published them again since."""
        if tombstone.kind != "erased":
            return False
        delta = self._log.open(tombstone.table)
        current = {each.digest for each in live(delta).values()} if delta is not None else set()
        paths = (data_path(part.partition, part.digest) for part in tombstone.parts if part.digest not in current)
        return any(self._files.find(f"{tombstone.table}/{path}") is not None for path in paths)

    def _unfinished(self, tombstone: Tombstone) -> Finding:
        return Finding(
            name=_UNFINISHED,
            where=f"{self._use_case}/{tombstone.table} tombstone {tombstone.id}",
            what="bytes that were to be erased are still stored: the erasure was cut short",
            remedy="repair it, or erase again",
            repairable=True,
        )

    def _examine(self, table: str) -> Iterator[Finding]:
        delta = self._log.open(table)
        if delta is None:
            return
        where = f"{self._use_case}/{table}"
        for version in self._log.foreign(table):
            yield Finding(
                name="stray_write",
                where=f"{where}@{version}",
                what="somebody wrote to the table past the store: this version has no audit",
                remedy="revert the table to the snapshot before it",
                repairable=False,
            )
        sizes = {stored.path: stored.bytes for stored in self._files.below(table)}
        told = {p.digest for each in self.tombstones() if each.table == table for p in each.parts}
        for part in named_files(delta):
            found = sizes.get(f"{table}/{part.path}")
            if found == part.bytes or (found is None and part.digest in told):
                continue
            what = "is missing" if found is None else f"has {found} bytes in the place of {part.bytes}"
            yield Finding(
                name="damaged_file",
                where=f"{where}/{part.partition}",
                what=f"the published file {part.digest[:12]} {what}",
                remedy="restore it from a backup, ingest the partition again, or revert to a snapshot that reads",
                repairable=False,
            )


def _replaced(files: Iterable[Stored]) -> list[Stored]:
    """Checkpoints of a log that newer ones have made needless; each 100th version keeps its own, for time travel.

    A checkpoint only saves reading the commits before it, and they are all kept.
    """
    found = {int(match[1]): stored for stored in files if (match := _CHECKPOINT.fullmatch(stored.path))}
    return [found[version] for version in sorted(found)[:-1] if (version + 1) % 100]
