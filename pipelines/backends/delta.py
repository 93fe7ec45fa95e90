"""Snapshots on Delta Lake, on a local disk.

One Delta table a table, partitioned by `partition`. A partition is one Parquet file named by its BLAKE3 digest, so that
"are these bytes published already?" is a look at the log and a repeat is a no-op. Publishing links the staged file
into the table's folder and commits it to the log in one transaction; what was audited is, byte for byte, what is read.

    <root>/<use case>/<table>/_delta_log/               the log: what is visible
    <root>/<use case>/<table>/partition=<key>/<digest>.parquet
    <root>/<use case>/_staging/<table>/<key>/           staged, invisible
    <root>/<use case>/_quarantine/<table>/<key>/        bad partitions: report, original files

After a crash at any point the same call ends in the same state: files that no commit names are invisible. Local
commits are not fsynced: this survives a killed process, not a power cut.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from pipelines.audits import audits_of
from pipelines.backends.delta_quarantine import list_set_aside, set_aside
from pipelines.errors import ConflictError, IntegrityError, NotFoundError, SchemaMismatch, explain
from pipelines.failpoints import failpoint
from pipelines.parquet import digest, write
from pipelines.ports import Draft
from pipelines.records import (
    Commit,
    CommitNote,
    Publication,
    PublishedPartition,
    Quarantined,
    RunInfo,
    SnapshotRef,
    StagedPartition,
    ValidationReport,
)

if TYPE_CHECKING:
    from deltalake import DeltaTable

_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,47}")
_ATTEMPTS = 10
#: Commits carry audits and provenance, so the log is kept for good (Delta's default is 30 days).
_CONFIGURATION: dict[str, str | None] = {"delta.logRetentionDuration": "interval 36500 days"}


class DeltaStore:
    """`SnapshotStore` for one use case. See the port for what each method promises."""

    def __init__(self, root: Path, use_case: str) -> None:
        """Opens nothing; folders are made on the first write.

        Args:
            root: folder of all use cases' snapshots.
        """
        self._use_case = use_case
        self._root = root / _checked(_TABLE, use_case, "use case")

    # -- staging -------------------------------------------------------------------------------------------------

    def stage(self, table: str, drafts: Iterable[Draft], run: RunInfo) -> tuple[StagedPartition, ...]:  # noqa: ARG002, D102
        _checked(_TABLE, table, "table")
        delta = self._open(table)
        current = self._list(delta) if delta is not None else {}
        return tuple(self._stage(table, draft, current) for draft in drafts)

    def _stage(self, table: str, draft: Draft, current: Mapping[str, PublishedPartition]) -> StagedPartition:
        folder = self._root / "_staging" / table / _checked(_KEY, draft.partition, "partition")
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, suffix=".tmp")
        os.close(handle)
        temporary = Path(name)
        try:
            digest = write(draft.frame, temporary)
            path = folder / f"{digest}.parquet"
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        failpoint("stage.written")
        return StagedPartition(
            use_case=self._use_case,
            table=table,
            partition=draft.partition,
            digest=digest,
            rows=draft.frame.height,
            bytes=path.stat().st_size,
            area=str(folder),
            base=current[draft.partition].digest if draft.partition in current else None,
            sources=draft.sources,
            problems=draft.problems,
        )

    def read_staged(self, staged: StagedPartition) -> pl.LazyFrame:  # noqa: D102
        return pl.scan_parquet(self.local(staged), hive_partitioning=False)

    def local(self, staged: StagedPartition) -> Path:  # noqa: D102
        path = self._locate(staged)
        if digest(path) != staged.digest:
            raise IntegrityError(
                explain(self._where(staged), "the staged file is not what was staged", remedy="land it again")
            )
        return path

    def discard(self, staged: StagedPartition) -> None:  # noqa: D102
        self._staged_path(staged).unlink(missing_ok=True)

    # -- publishing ----------------------------------------------------------------------------------------------

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
    ) -> Publication:
        audits = audits_of(self._use_case, table, staged, reports)
        for part in staged:
            self.local(part)
        failpoint("publish.verified")
        for _ in range(_ATTEMPTS):
            delta = self._open_or_create(table, staged)
            current = {part.partition: part.digest for part in self._list(delta).values()}
            now = {part.partition: current.get(part.partition) for part in staged}
            changed = [part for part in staged if now[part.partition] != part.digest]
            self._refuse_losers(changed, now, absent=absent)
            if not changed:
                version = delta.version()
                break
            note = CommitNote(
                kind=kind,
                table=table,
                run=run,
                partitions={part.partition: part.digest for part in changed},
                audits={part.partition: audits[part.partition] for part in changed},
                provenance=dict(provenance or {}),
            )
            if (committed := self._commit(delta, table, changed, now, note)) is not None:
                version = committed
                break
        else:
            raise ConflictError(
                explain(f"{self._use_case}/{table}", f"{_ATTEMPTS} commits in a row lost to other writers")
            )
        for part in staged:
            self.discard(part)
        names = {part.partition for part in changed}
        done = {part.partition: _published(part) for part in staged}
        return Publication(
            snapshot=self._ref(table, version),
            published=tuple(done[name] for name in sorted(names)),
            unchanged=tuple(done[name] for name in sorted(done.keys() - names)),
        )

    def _refuse_losers(
        self,
        changed: Sequence[StagedPartition],
        now: Mapping[str, str | None],
        *,
        absent: bool,
    ) -> None:
        for part in changed:
            found = now[part.partition]
            if absent and found is not None:
                raise ConflictError(explain(self._where(part), "published already by another run"))
            if found != part.base:
                raise ConflictError(
                    explain(
                        self._where(part),
                        "another run published other rows since this was staged",
                        remedy="stage it again: clear the run from its first task",
                    )
                )

    def _commit(
        self,
        delta: DeltaTable,
        table: str,
        changed: Sequence[StagedPartition],
        now: Mapping[str, str | None],
        note: CommitNote,
    ) -> int | None:
        """One attempt: the version it made, or None when another commit came first."""
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import AddAction, RemoveAction

        actions: list[Any] = []
        for part in changed:
            relative = f"partition={part.partition}/{part.digest}.parquet"
            target = self._root / table / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                _link(self._locate(part), target)
            stamp = int(target.stat().st_mtime * 1000)
            if (old := now[part.partition]) is not None:
                gone = f"partition={part.partition}/{old}.parquet"
                actions.append(
                    RemoveAction(
                        gone,
                        True,
                        stamp,
                        (self._root / table / gone).stat().st_size,
                        {"partition": part.partition},
                    )
                )
            stats = json.dumps({"numRecords": part.rows})
            actions.append(AddAction(relative, part.bytes, {"partition": part.partition}, stamp, True, stats))
        failpoint("publish.linked")
        # A transaction counter a partition: two writers of the same partition conflict even when both only add.
        counters = [Transaction(name, (delta.transaction_version(name) or 0) + 1) for name in note.partitions]
        text = note.model_dump_json()
        try:
            delta.create_write_transaction(
                actions,
                mode="append",
                schema=delta.schema(),
                partition_by=["partition"],
                commit_properties=CommitProperties(
                    custom_metadata={"overnight": text},
                    max_commit_retries=15,
                    app_transactions=counters,
                ),
            )
        except CommitFailedError:
            return None
        failpoint("publish.committed")
        # Commits of other partitions may have slipped in before or after ours: ours is the one with our message.
        delta.update_incremental()
        return next(int(entry["version"]) for entry in delta.history() if entry.get("overnight") == text)

    # -- quarantine ----------------------------------------------------------------------------------------------

    def quarantine(  # noqa: D102
        self, report: ValidationReport, staged: StagedPartition | None, originals: Sequence[Path]
    ) -> Quarantined:
        parent = self._root / "_quarantine" / _checked(_TABLE, report.table, "table")
        entry = set_aside(parent / _checked(_KEY, report.partition, "partition"), report, originals)
        if staged is not None:
            self.discard(staged)
        return entry

    def quarantined(self, table: str) -> list[Quarantined]:  # noqa: D102
        return list_set_aside(self._root / "_quarantine" / _checked(_TABLE, table, "table"))

    # -- reading -------------------------------------------------------------------------------------------------

    def head(self, table: str) -> SnapshotRef | None:  # noqa: D102
        delta = self._open(table)
        if delta is None or delta.version() == 0:  # version 0 is the empty table's creation
            return None
        return self._ref(table, delta.version())

    def partitions(self, snapshot: SnapshotRef) -> dict[str, PublishedPartition]:  # noqa: D102
        return self._list(self._at(snapshot))

    def scan(  # noqa: D102
        self, snapshot: SnapshotRef, partitions: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ) -> pl.LazyFrame:
        delta = self._at(snapshot)
        held = self._list(delta)
        wanted = list(held) if partitions is None else sorted(partitions)
        if missing := [key for key in wanted if key not in held]:
            raise NotFoundError(
                explain(snapshot.id, f"no partition {', '.join(missing[:5])}", remedy="ingest it first")
            )
        if not wanted:
            empty = pl.DataFrame(schema=pl.Schema(delta.schema())).lazy()
            return (
                empty.select("partition", *columns)
                if columns is not None
                else empty.select("partition", pl.exclude("partition"))
            )
        folder = self._root / snapshot.table
        files = [folder / f"partition={key}" / f"{held[key].digest}.parquet" for key in wanted]
        frame = pl.scan_parquet(files, hive_partitioning=True, hive_schema={"partition": pl.String})
        if columns is not None:
            return frame.select("partition", *columns)
        return frame.select("partition", pl.exclude("partition"))

    def history(self, table: str) -> list[Commit]:  # noqa: D102
        delta = self._open(table)
        commits: list[Commit] = []
        for entry in delta.history() if delta is not None else []:
            if (message := entry.get("overnight")) is not None:
                at = datetime.fromtimestamp(entry["timestamp"] / 1000, UTC)
                made = {"snapshot": self._ref(table, entry["version"]), "at": at}
                commits.append(Commit.model_validate({**json.loads(message), **made}))
        return commits

    # -- inner ---------------------------------------------------------------------------------------------------

    def _open(self, table: str, version: int | None = None) -> DeltaTable | None:
        from deltalake import DeltaTable

        folder = self._root / _checked(_TABLE, table, "table")
        if not (folder / "_delta_log").is_dir() or not DeltaTable.is_deltatable(str(folder)):
            return None
        return DeltaTable(str(folder), version=version)

    def _open_or_create(self, table: str, staged: Sequence[StagedPartition]) -> DeltaTable:
        from deltalake import DeltaTable

        schema = pl.scan_parquet(self._locate(staged[0]), hive_partitioning=False).collect_schema()
        delta = self._open(table)
        if delta is None:
            delta = DeltaTable.create(
                str(self._root / table),
                pl.Schema([*schema.items(), ("partition", pl.String())]),
                mode="ignore",
                partition_by=["partition"],
                configuration=_CONFIGURATION,
            )
        published = pl.Schema(delta.schema())
        published.pop("partition")
        if list(published.items()) != list(schema.items()):
            raise SchemaMismatch(
                explain(
                    f"{self._use_case}/{table}",
                    f"the partition's columns are {_shown(schema)}",
                    allowed=f"the published table's: {_shown(published)}",
                    remedy="publish a changed schema under a new table or use case name",
                )
            )
        return delta

    def _at(self, snapshot: SnapshotRef) -> DeltaTable:
        from deltalake.exceptions import DeltaError

        try:
            delta = self._open(snapshot.table, int(snapshot.version))
        except (DeltaError, OSError, ValueError) as error:
            raise NotFoundError(explain(snapshot.id, f"there is no such snapshot ({error})")) from None
        if delta is None or snapshot.use_case != self._use_case:
            raise NotFoundError(explain(snapshot.id, "there is no such snapshot"))
        return delta

    def _list(self, delta: DeltaTable) -> dict[str, PublishedPartition]:
        actions = pl.DataFrame(delta.get_add_actions(flatten=True))
        if actions.is_empty():
            return {}
        rows = actions.select("path", "num_records", pl.col("partition.partition").alias("key")).sort("key").rows()
        return {
            key: PublishedPartition(partition=key, digest=Path(path).stem, rows=records) for path, records, key in rows
        }

    def _ref(self, table: str, version: int) -> SnapshotRef:
        return SnapshotRef(store="delta", use_case=self._use_case, table=table, version=str(version))

    def _staged_path(self, staged: StagedPartition) -> Path:
        folder = self._root / "_staging" / _checked(_TABLE, staged.table, "table")
        return folder / _checked(_KEY, staged.partition, "partition") / f"{staged.digest}.parquet"

    def _locate(self, staged: StagedPartition) -> Path:
        """The staged file; after a crash past the commit, the published one."""
        published = self._root / staged.table / f"partition={staged.partition}" / f"{staged.digest}.parquet"
        for path in (self._staged_path(staged), published):
            if path.exists():
                return path
        raise NotFoundError(explain(self._where(staged), "the staged file is gone", remedy="land it again"))

    def _where(self, staged: StagedPartition) -> str:
        return f"{self._use_case}/{staged.table}/{staged.partition}"


def _published(staged: StagedPartition) -> PublishedPartition:
    return PublishedPartition(partition=staged.partition, digest=staged.digest, rows=staged.rows)


def _checked(pattern: re.Pattern[str], value: str, what: str) -> str:
    """Names become folders, so only these characters pass."""
    if not pattern.fullmatch(value):
        raise NotFoundError(explain(what, f"{value!r} is not a name", allowed=f"the pattern {pattern.pattern}"))
    return value


def _shown(schema: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {dtype}" for name, dtype in schema.items())


def _link(source: Path, target: Path) -> None:
    """Puts the file at `target` whole or not at all, without a copy where the disk allows it."""
    try:
        os.link(source, target)
    except FileExistsError:
        pass
    except OSError:
        temporary = target.with_suffix(".tmp")
        shutil.copyfile(source, temporary)
        temporary.replace(target)
