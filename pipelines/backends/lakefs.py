"""Snapshots on lakeFS: a repository a use case, a branch a run, and main, which only audited merges change.

`lakefs_layout` shows where things are. Staging uploads to a branch of its own and commits there; publishing reads the
bytes again at that commit, and merges that commit, with the audits in the merge commit's metadata. Reading is by
commit id only, through the server's S3 gateway. What becomes of a process that dies, or of a call that is not
answered, is in `lakefs_merge` and `lakefs_client`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

import polars as pl

from pipelines.audits import audits_of
from pipelines.backends.lakefs_blocks import Blocks
from pipelines.backends.lakefs_client import MAIN, Repository, Stored
from pipelines.backends.lakefs_http import Server
from pipelines.backends.lakefs_layout import (
    Held,
    checked_table,
    folder,
    part_path,
    published,
    repository_name,
    schema_path,
)
from pipelines.backends.lakefs_merge import AUDIT, notes
from pipelines.backends.lakefs_publish import Publishing
from pipelines.backends.lakefs_records import Records
from pipelines.backends.lakefs_removal import UNFINISHED, Removal
from pipelines.backends.lakefs_revert import revert
from pipelines.backends.lakefs_setup import Setup
from pipelines.backends.lakefs_staging import Staging
from pipelines.errors import (
    IntegrityError,
    NotFoundError,
    SpecError,
    explain,
)
from pipelines.parquet import noted
from pipelines.ports import Draft
from pipelines.records import (
    Commit,
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
from pipelines.settings import Settings

_ATTEMPTS = 10


class LakeFSStore:
    """`SnapshotStore` for one use case. See the port for what each method promises."""

    def __init__(
        self,
        server: Server,
        use_case: str,
        *,
        storage: str,
        gate: Path,
        cache: Path,
        blocks: Path | None = None,
        prefix: str = "",
    ) -> None:
        """Connects to nothing; the repository is made on the first write.

        Args:
            storage: storage namespace below which the repository's is made.
            gate: folder of the pre-merge action.
            cache: folder for staged files on this machine.
            blocks: the server's local block folder as this machine sees it; for removing bytes.
            prefix: of the repository's name, for several installations on one server.
        """
        self._use_case = checked_table(use_case, "use case")
        self._repository = Repository(server, repository_name(use_case, prefix))
        self._setup = Setup(self._repository, f"{storage.rstrip('/')}/{self._repository.name}", gate)
        self._records = Records(self._repository)
        self._audited: set[str] = set()
        self._schemas: dict[SnapshotRef, pl.Schema] = {}
        self._blocks = Blocks(self._repository, blocks)
        self._staging = Staging(self._repository, self._records, self._blocks, cache, use_case)
        self._publishing = Publishing(self._repository, self._records, self._staging, use_case)
        self._removal = Removal(self._repository, self._records, self._blocks, self._staging, cache)

    # -- staging ---------------------------------------------------------------------------------------------------

    def stage(self, table: str, drafts: Iterable[Draft], run: RunInfo) -> tuple[StagedPartition, ...]:  # noqa: D102
        checked_table(table)
        self._setup.ensure()
        return self._staging.stage(table, drafts, run)

    def read_staged(self, staged: StagedPartition) -> pl.LazyFrame:  # noqa: D102
        return pl.scan_parquet(self.local(staged), hive_partitioning=False)

    def local(self, staged: StagedPartition) -> Path:  # noqa: D102
        return self._staging.local(staged)

    def discard(self, staged: StagedPartition) -> None:  # noqa: D102
        self._staging.discard(staged)

    # -- publishing ------------------------------------------------------------------------------------------------

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
        version, changed = self._publishing.publish(
            table, staged, audits, run, provenance=provenance or {}, absent=absent, kind=kind, wider=wider
        )
        done = {
            part.partition: PublishedPartition(partition=part.partition, digest=part.digest, rows=part.rows)
            for part in staged
        }
        return Publication(
            snapshot=self._ref(table, version),
            published=tuple(done[name] for name in sorted(changed)),
            unchanged=tuple(done[name] for name in sorted(done.keys() - changed)),
        )

    def revert(self, to: SnapshotRef, run: RunInfo, *, reason: str) -> Publication:  # noqa: D102
        target = self._readable(to, self._held(to).all())
        gone = set(self._records.removed())
        version, back = revert(self._repository, self._use_case, to, target, run, reason, gone)
        done = {key: published(key, stored) for key, stored in target.items()}
        return Publication(
            snapshot=self._ref(to.table, version),
            published=tuple(part for key, part in done.items() if key in back),
            unchanged=tuple(part for key, part in done.items() if key not in back),
        )

    # -- reading ---------------------------------------------------------------------------------------------------

    def head(self, table: str) -> SnapshotRef | None:  # noqa: D102
        part_path(table, "any")
        version = self._repository.head(MAIN)
        if version is not None and not self._is_audited(version):
            # Somebody merged by hand and past the gate: what they brought is nobody's to read.
            version = next((entry.id for entry in self._repository.log(MAIN) if AUDIT in entry.metadata), None)
        if version is None or not self._any(version, table):
            return None
        return self._ref(table, version)

    def partitions(self, snapshot: SnapshotRef) -> dict[str, PublishedPartition]:  # noqa: D102
        return {key: published(key, stored) for key, stored in self._held(snapshot).all().items()}

    def scan(  # noqa: D102
        self, snapshot: SnapshotRef, partitions: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ) -> pl.LazyFrame:
        files = list(self._uris(snapshot, partitions).values())
        if files:
            frame = pl.scan_parquet(
                files,
                schema=self._columns(snapshot),
                missing_columns="insert",  # partitions from before the table became wider
                hive_partitioning=True,
                hive_schema={"partition": pl.String},
                storage_options=self._s3,
            )
        else:
            empty = pl.DataFrame(schema=self._columns(snapshot))
            frame = empty.with_columns(partition=pl.lit(None, pl.String)).lazy()
        return frame.select("partition", *(columns if columns is not None else [pl.exclude("partition")]))

    def _uris(self, snapshot: SnapshotRef, partitions: Sequence[str] | None) -> dict[str, str]:
        """Where the files of partitions are read."""
        held = self._held(snapshot)
        found: Mapping[str, Stored | None] = held.all() if partitions is None else held.many(sorted(set(partitions)))
        if missing := [key for key, stored in found.items() if stored is None]:
            raise NotFoundError(
                explain(snapshot.id, f"no partition {', '.join(missing[:5])}", remedy="ingest it first")
            )
        if not found:
            return {}
        readable = self._readable(snapshot, {key: stored for key, stored in found.items() if stored is not None})
        return {key: self._uri(stored.ref, stored.path) for key, stored in readable.items()}

    def notes(self, snapshot: SnapshotRef, partitions: Sequence[str], name: str) -> dict[str, str]:  # noqa: D102
        return noted(self._uris(snapshot, partitions), name, self._s3)

    def _columns(self, snapshot: SnapshotRef) -> pl.Schema:
        """A table's columns at a snapshot. They are asked for once: commits do not change."""
        if snapshot not in self._schemas:
            stated = self._repository.read(snapshot.version, schema_path(snapshot.table))
            if stated is None:
                raise IntegrityError(explain(snapshot.id, "the file that says the table's columns is gone"))
            self._schemas[snapshot] = pl.read_parquet(io.BytesIO(stated)).schema
        return self._schemas[snapshot]

    def history(self, table: str) -> list[Commit]:  # noqa: D102
        return list(notes(self._repository, self._use_case, checked_table(table)))

    def _held(self, snapshot: SnapshotRef) -> Held:
        """What a snapshot holds. Only a commit that a publish made is one: a run's own is not.

        Raises:
            NotFoundError: there is no such snapshot.
        """
        if (snapshot.store, snapshot.use_case) == ("lakefs", self._use_case):
            checked_table(snapshot.table)
            if self._is_audited(snapshot.version) and self._any(snapshot.version, snapshot.table):
                return Held(self._repository, snapshot.version, snapshot.table)
        raise NotFoundError(explain(snapshot.id, "there is no such snapshot"))

    def _is_audited(self, version: str) -> bool:
        """Whether a commit says which audits let it through. It is asked for once: commits do not change."""
        if version not in self._audited:
            commit = self._repository.get_commit(version)
            if commit is None or AUDIT not in commit.metadata:
                return False
            self._audited.add(version)
        return True

    def _any(self, version: str, table: str) -> bool:
        return next(self._repository.objects(version, folder(table), amount=1), None) is not None

    def _readable(self, snapshot: SnapshotRef, found: Mapping[str, Stored]) -> dict[str, Stored]:
        """The same partitions, where their bytes can be read: removed ones may have been published again since.

        Raises:
            RemovedError: they were not.
        """
        if not (gone := self._records.removed()).keys() & {stored.address for stored in found.values()}:
            return dict(found)
        history = self.history(snapshot.table)
        return {
            key: self._removal.readable(snapshot.id, history, published(key, stored), gone)
            if stored.address in gone
            else stored
            for key, stored in found.items()
        }

    def _uri(self, version: str, path: str) -> str:
        return f"s3://{self._repository.name}/{version}/{path}"

    @cached_property
    def _s3(self) -> dict[str, str]:
        """How Polars reaches the server's S3 gateway."""
        server = self._repository.server
        return {
            "aws_endpoint_url": server.endpoint.rstrip("/"),
            "aws_access_key_id": server.access_key_id,
            "aws_secret_access_key": server.secret_access_key.get_secret_value(),
            "aws_region": "us-east-1",
            "aws_allow_http": "true",
            "aws_virtual_hosted_style_request": "false",
        }

    def _ref(self, table: str, version: str) -> SnapshotRef:
        return SnapshotRef(store="lakefs", use_case=self._use_case, table=table, version=version)

    # -- keeping and removing --------------------------------------------------------------------------------------

    def pin(self, name: str, snapshot: SnapshotRef, *, reason: str) -> Pin:  # noqa: D102
        self._held(snapshot)
        return self._records.pin(Pin(name=name, snapshot=snapshot, reason=reason))

    def unpin(self, name: str) -> None:  # noqa: D102
        self._records.unpin(name)

    def pins(self) -> list[Pin]:  # noqa: D102
        return self._records.pins()

    def held(self, table: str) -> list[PublishedPartition]:  # noqa: D102
        return self._removal.held(self.history(table))

    def read_held(self, table: str, part: PublishedPartition) -> pl.LazyFrame:  # noqa: D102
        where = f"{self._use_case}/{table}"
        stored = self._removal.readable(where, self.history(table), part, self._records.removed())
        uri = self._uri(stored.ref, stored.path)
        return pl.scan_parquet(uri, hive_partitioning=False, storage_options=self._s3)

    def purge(self, tombstone: Tombstone) -> None:  # noqa: D102
        self._setup.ensure()
        self._removal.purge(tombstone, self.history(tombstone.table))

    def tombstones(self) -> list[Tombstone]:  # noqa: D102
        return self._records.tombstones()

    def sweep(self, before: datetime, *, dry_run: bool = True) -> list[str]:  # noqa: D102
        return self._removal.sweep(before, dry_run=dry_run)

    # -- quarantine ------------------------------------------------------------------------------------------------

    def quarantine(  # noqa: D102
        self, report: ValidationReport, staged: StagedPartition | None, originals: Sequence[Path]
    ) -> Quarantined:
        self._setup.ensure()
        published = staged is not None and staged.base == report.digest
        entry = self._records.set_aside(report, originals, published=published)
        if staged is not None:
            self.discard(staged)
        return entry

    def quarantined(self, table: str) -> list[Quarantined]:  # noqa: D102
        return self._records.quarantined(table)

    def originals(self, entry: Quarantined) -> dict[str, bytes]:  # noqa: D102
        return self._records.originals(entry)

    def expunge(self, entry: Quarantined, report: ValidationReport) -> None:  # noqa: D102
        self._blocks.remove(self._records.expunge(entry, report))

    # -- health ----------------------------------------------------------------------------------------------------

    def examine(self) -> list[Finding]:  # noqa: D102
        return self._setup.examine() + self._removal.examine()

    def repair(self, finding: Finding) -> None:  # noqa: D102
        if finding.name != UNFINISHED:
            self._setup.repair(finding)
        elif finding in self._removal.examine():
            stone = next(stone for stone in self.tombstones() if stone.id == finding.where)
            self.purge(stone)
        else:
            raise NotFoundError(explain(finding.where, f"no finding {finding.name!r}", remedy="examine again"))


def open_store(use_case: str, settings: Settings) -> LakeFSStore:
    """The store of a use case by the settings.

    Raises:
        SpecError: the server or its credentials are not set.
    """
    endpoint, key, secret = (
        settings.lakefs_endpoint,
        settings.lakefs_access_key_id,
        settings.lakefs_secret_access_key,
    )
    if endpoint is None or key is None or secret is None:
        names = ("OVERNIGHT_LAKEFS_ENDPOINT", "OVERNIGHT_LAKEFS_ACCESS_KEY_ID", "OVERNIGHT_LAKEFS_SECRET_ACCESS_KEY")
        given = (endpoint, key, secret)
        missing = ", ".join(name for name, value in zip(names, given, strict=True) if value is None)
        raise SpecError(
            explain(
                f"use case {use_case}",
                f"its snapshots are on lakeFS, and {missing} is not set",
                remedy="set it, or say `snapshot: delta` in the spec",
            )
        )
    return LakeFSStore(
        Server(
            endpoint=endpoint,
            access_key_id=key,
            secret_access_key=secret,
            timeout=settings.lakefs_timeout,
            deadline=settings.lakefs_deadline,
        ),
        use_case,
        storage=settings.lakefs_storage,
        gate=settings.lakefs_gate,
        cache=settings.cache / "lakefs",
        blocks=settings.lakefs_blockstore,
        prefix=settings.lakefs_prefix,
    )
