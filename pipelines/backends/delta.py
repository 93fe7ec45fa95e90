"""Snapshots on Delta Lake, on a local disk or on S3.

One Delta table a table, partitioned by `partition`. A partition is one Parquet file named by its digest, so that
"are these bytes published already?" is a look at the log and a repeat is a no-op. Publishing links (on S3: copies, on
the server) the staged file into the table's folder and commits it to the log in one transaction; what was audited is,
byte for byte, what is read.

    <root>/<use case>/<table>/_delta_log/               the log: what is visible
    <root>/<use case>/<table>/partition=<key>/<digest>.parquet
    <root>/<use case>/_staging/<table>/<key>/           staged, invisible
    <root>/<use case>/_quarantine/<table>/<key>/        bad partitions: report, original files
    <root>/<use case>/_pins, _tombstones                what is kept, and what is gone for good

After a crash at any point the same call ends in the same state: files that no commit names are invisible. Local
commits are not fsynced: this survives a killed process, not a power cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from pipelines.audits import audits_of, conflict, overtaken
from pipelines.backends.delta_files import open_files
from pipelines.backends.delta_keep import DeltaKeeper
from pipelines.backends.delta_log import DeltaLog, Live, live, named_files
from pipelines.backends.delta_names import checked_table, data_path
from pipelines.backends.delta_quarantine import DeltaQuarantine
from pipelines.backends.delta_staging import DeltaStaging
from pipelines.columns import admitted
from pipelines.errors import AuditError, ConflictError, NotFoundError, explain
from pipelines.failpoints import failpoint
from pipelines.parquet import noted
from pipelines.ports import Draft
from pipelines.records import (
    Audit,
    Commit,
    CommitNote,
    Finding,
    Pin,
    Publication,
    PublishedPartition,
    Quarantined,
    RunInfo,
    SnapshotRef,
    StagedPartition,
    Tombstone,
    ValidationReport,
)

if TYPE_CHECKING:
    from deltalake import DeltaTable

_ATTEMPTS = 10


class DeltaStore:
    """`SnapshotStore` for one use case. See the port for what each method promises."""

    def __init__(self, root: str | Path, use_case: str, cache: Path) -> None:
        """Opens nothing; folders are made on the first write.

        Args:
            root: where all use cases' snapshots lie: a folder, or `s3://bucket/prefix`.
            cache: folder for this machine's copies of staged files; used when the root is not on its disk.
        """
        self._use_case = checked_table(use_case, "use case")
        self._files = open_files(root, use_case, cache)
        self._log = DeltaLog(self._files, use_case)
        self._staging = DeltaStaging(self._files, use_case)
        self._keeper = DeltaKeeper(self._files, self._log, use_case)
        self._quarantine = DeltaQuarantine(self._files)

    # -- staging -----------------------------------------------------------------------------------------------------

    def stage(self, table: str, drafts: Iterable[Draft], run: RunInfo) -> tuple[StagedPartition, ...]:  # noqa: ARG002, D102
        delta = self._log.open(table)
        current = live(delta) if delta is not None else {}
        return tuple(self._staging.stage(table, draft, current) for draft in drafts)

    def read_staged(self, staged: StagedPartition) -> pl.LazyFrame:  # noqa: D102
        return pl.scan_parquet(self.local(staged), hive_partitioning=False)

    def local(self, staged: StagedPartition) -> Path:  # noqa: D102
        return self._staging.local(staged)

    def discard(self, staged: StagedPartition) -> None:  # noqa: D102
        self._staging.discard(staged)

    # -- publishing --------------------------------------------------------------------------------------------------

    def publish(  # noqa: D102
        self,
        table: str,
        staged: Sequence[StagedPartition],
        reports: Sequence[ValidationReport],
        run: RunInfo,
        *,
        provenance: Mapping[str, object] | None = None,
        absent: bool = False,
        kind: Literal["publish", "erase"] = "publish",
        suite: str | None = None,
        wider: bool = False,
    ) -> Publication:
        audits = audits_of(self._use_case, table, staged, reports, suite)
        seen = {part.partition: self._staging.verify(part) for part in staged}
        columns = [self._staging.columns(part) for part in staged]
        failpoint("publish.verified")
        for _ in range(_ATTEMPTS):
            delta = self._log.open(table) or self._log.create(table, columns[0])
            widened = self._columns(table, delta, columns, wider=wider)
            files = named_files(delta, [part.partition for part in staged])
            current = {each.partition: each for each in files}
            now = {part.partition: _digest(current, part.partition) for part in staged}
            changed = [part for part in staged if now[part.partition] != part.digest]
            if (lost := overtaken(changed, now, absent=absent)) is not None:
                raise conflict(self._use_case, lost, "another run", absent=absent)
            if not changed:
                version = delta.version()
                break
            for part in changed:
                self._staging.place(part, seen[part.partition])
            failpoint("publish.linked")
            note = CommitNote(
                kind=kind,
                table=table,
                run=run,
                partitions={part.partition: part.digest for part in changed},
                audits={part.partition: audits[part.partition] for part in changed},
                provenance=dict(provenance or {}),
            )
            old = [each for each in files if each.partition in note.partitions]
            new = [_live(part) for part in changed]
            if (made := self._log.commit(delta, note, add=new, remove=old, columns=widened)) is not None:
                failpoint("publish.committed")
                version = made
                break
        else:
            what = f"{_ATTEMPTS} commits in a row lost to other writers"
            raise ConflictError(explain(f"{self._use_case}/{table}", what))
        self._staging.settle(staged, seen)
        return _publication(self._log.ref(table, version), map(_live, staged), {part.partition for part in changed})

    def _columns(self, table: str, delta: DeltaTable, offered: Iterable[pl.Schema], *, wider: bool) -> pl.Schema | None:
        """The table's columns once these partitions are in it; None where they stay what they are."""
        published = pl.Schema(delta.schema())
        published.pop("partition")
        columns = published
        for schema in offered:
            columns = admitted(f"{self._use_case}/{table}", columns, schema, wider=wider)
        return None if columns == published else columns

    def revert(self, to: SnapshotRef, run: RunInfo, *, reason: str) -> Publication:  # noqa: D102
        wanted = named_files(self._log.at(to))
        delta = self._log.open(to.table)
        assert delta is not None, "the table has the version that was opened a moment ago"
        current = named_files(delta)
        changed = _without(wanted, current)
        old = _without(current, wanted)
        removed = sorted({each.partition for each in old} - {each.partition for each in wanted})
        if not changed and not old:
            return _publication(self._log.ref(to.table, delta.version()), wanted, set())
        self._keeper.refuse_removed(to.id, to.table, changed)
        note = CommitNote(
            kind="revert",
            table=to.table,
            run=run,
            partitions={each.partition: each.digest for each in changed},
            removed=tuple(removed),
            audits={each.partition: self._audit(to, each) for each in changed},
            provenance={"reverted_to": to.id, "reason": reason},
        )
        failpoint("revert.prepared")
        version = self._log.commit(delta, note, add=changed, remove=old, alone=True)
        if version is None:
            raise ConflictError(explain(to.id, "another run published at the same time", remedy="revert again"))
        failpoint("revert.committed")
        return _publication(self._log.ref(to.table, version), wanted, {each.partition for each in changed})

    def _audit(self, to: SnapshotRef, part: Live) -> Audit:
        """The audit that first let these bytes through."""
        for commit in reversed(self._log.history(to.table)):
            if commit.partitions.get(part.partition) == part.digest:
                return commit.audits[part.partition]
        what = f"no publish made partition {part.partition} of it: its bytes were never audited"
        raise AuditError(explain(to.id, what, remedy="revert to another snapshot"))

    # -- reading -----------------------------------------------------------------------------------------------------

    def head(self, table: str) -> SnapshotRef | None:  # noqa: D102
        delta = self._log.read(table)
        if delta is None or delta.version() == 0:  # version 0 is the empty table's creation
            return None
        return self._log.ref(table, delta.version())

    def partitions(self, snapshot: SnapshotRef) -> dict[str, PublishedPartition]:  # noqa: D102
        return {key: each.published for key, each in live(self._log.at(snapshot)).items()}

    def scan(  # noqa: D102
        self, snapshot: SnapshotRef, partitions: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ) -> pl.LazyFrame:
        delta = self._log.at(snapshot)
        files = self._uris(snapshot, delta, partitions)
        chosen = pl.exclude("partition") if columns is None else pl.col(*columns)
        if not files:
            return pl.DataFrame(schema=pl.Schema(delta.schema())).lazy().select("partition", chosen)
        rows = pl.scan_parquet(
            list(files.values()),
            schema=pl.Schema(delta.schema()),
            missing_columns="insert",  # partitions from before the table became wider
            hive_partitioning=True,
            hive_schema={"partition": pl.String},
            storage_options=self._files.polars_options,
        )
        return rows.select("partition", chosen)

    def _uris(self, snapshot: SnapshotRef, delta: DeltaTable, partitions: Sequence[str] | None) -> dict[str, str]:
        """Where the files of partitions are read."""
        held = live(delta, only=partitions)
        wanted = list(held) if partitions is None else sorted(set(partitions))
        if missing := [key for key in wanted if key not in held]:
            raise NotFoundError(
                explain(snapshot.id, f"no partition {', '.join(missing[:5])}", remedy="ingest it first")
            )
        self._keeper.refuse_removed(snapshot.id, snapshot.table, [held[key] for key in wanted])
        return {key: self._files.uri(f"{snapshot.table}/{held[key].path}") for key in wanted}

    def notes(self, snapshot: SnapshotRef, partitions: Sequence[str], name: str) -> dict[str, str]:  # noqa: D102
        return noted(self._uris(snapshot, self._log.at(snapshot), partitions), name, self._files.polars_options)

    def history(self, table: str) -> list[Commit]:  # noqa: D102
        return self._log.history(table)

    # -- keeping and removing ----------------------------------------------------------------------------------------

    def pin(self, name: str, snapshot: SnapshotRef, *, reason: str) -> Pin:  # noqa: D102
        return self._keeper.pin(name, snapshot, reason=reason)

    def unpin(self, name: str) -> None:  # noqa: D102
        self._keeper.unpin(name)

    def pins(self) -> list[Pin]:  # noqa: D102
        return self._keeper.pins()

    def held(self, table: str) -> list[PublishedPartition]:  # noqa: D102
        return self._keeper.held(checked_table(table))

    def read_held(self, table: str, part: PublishedPartition) -> pl.LazyFrame:  # noqa: D102
        self._keeper.refuse_unheld(checked_table(table), part)
        uri = self._files.uri(f"{table}/{data_path(part.partition, part.digest)}")
        return pl.scan_parquet(uri, hive_partitioning=False, storage_options=self._files.polars_options)

    def purge(self, tombstone: Tombstone) -> None:  # noqa: D102
        self._keeper.purge(tombstone)

    def tombstones(self) -> list[Tombstone]:  # noqa: D102
        return self._keeper.tombstones()

    def sweep(self, before: datetime, *, dry_run: bool = True) -> list[str]:  # noqa: D102
        return self._keeper.sweep(before, dry_run=dry_run)

    # -- quarantine --------------------------------------------------------------------------------------------------

    def quarantine(  # noqa: D102
        self, report: ValidationReport, staged: StagedPartition | None, originals: Sequence[Path]
    ) -> Quarantined:
        published = staged is not None and staged.base == report.digest
        entry = self._quarantine.set_aside(report, originals, published=published)
        if staged is not None:
            self.discard(staged)
        return entry

    def quarantined(self, table: str) -> list[Quarantined]:  # noqa: D102
        return self._quarantine.entries(table)

    def originals(self, entry: Quarantined) -> dict[str, bytes]:  # noqa: D102
        return self._quarantine.originals(entry)

    def expunge(self, entry: Quarantined, report: ValidationReport) -> None:  # noqa: D102
        self._quarantine.expunge(entry, report)

    # -- health ------------------------------------------------------------------------------------------------------

    def examine(self) -> list[Finding]:  # noqa: D102
        return self._keeper.examine()

    def repair(self, finding: Finding) -> None:  # noqa: D102
        self._keeper.repair(finding)


def _publication(snapshot: SnapshotRef, parts: Iterable[Live], changed: set[str]) -> Publication:
    done = sorted((each.published for each in parts), key=lambda part: part.partition)
    return Publication(
        snapshot=snapshot,
        published=tuple(part for part in done if part.partition in changed),
        unchanged=tuple(part for part in done if part.partition not in changed),
    )


def _live(staged: StagedPartition) -> Live:
    return Live(
        path=data_path(staged.partition, staged.digest),
        partition=staged.partition,
        digest=staged.digest,
        rows=staged.rows,
        bytes=staged.bytes,
    )


def _without(these: Iterable[Live], those: Iterable[Live]) -> list[Live]:
    paths = {each.path for each in those}
    return [each for each in these if each.path not in paths]


def _digest(held: Mapping[str, Live], partition: str) -> str | None:
    return held[partition].digest if partition in held else None
