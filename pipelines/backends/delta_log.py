"""The Delta logs of one use case: which files a version of a table holds, and how a new version is committed.

A commit is made by hand (ADR 0002). Every partition that it touches has a transaction counter, set to one more than the
version that was decided on: two writers of one partition conflict even when both only add. (Delta compares names of
counters, not numbers; reading the old number back costs delta-rs a replay of the log for each partition.)
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import polars as pl

from pipelines.backends.delta_files import FileStore, unavailable
from pipelines.backends.delta_names import checked_table
from pipelines.errors import NotFoundError, explain
from pipelines.records import Commit, CommitNote, PublishedPartition, SnapshotRef

if TYPE_CHECKING:
    from deltalake import DeltaTable, Schema

_NOTE = "overnight"
_RETRIES = 15
_CONFIGURATION: dict[str, str | None] = {
    # Commits carry audits and provenance, so the log is kept for good (Delta's default is 30 days).
    "delta.logRetentionDuration": "interval 36500 days",
    # Opening a table reads the newest checkpoint and every commit after it: on S3 that is a request each.
    "delta.checkpointInterval": "10",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Live:
    """A file as a version of the log names it: of a partition the only one, unless a stranger wrote too."""

    path: str
    """Below the table's folder."""
    partition: str
    digest: str
    rows: int
    bytes: int

    @property
    def published(self) -> PublishedPartition:
        """The same as a record."""
        return PublishedPartition(partition=self.partition, digest=self.digest, rows=self.rows)


def named_files(delta: DeltaTable, only: Sequence[str] | None = None) -> list[Live]:
    """Every file that an opened version names, in key order.

    Args:
        only: of these partitions; in a table of thousands the others cost time.
    """
    actions = pl.DataFrame(delta.get_add_actions(flatten=True))
    if actions.is_empty():
        return []
    columns = actions.select("path", "num_records", "size_bytes", pl.col("partition.partition").alias("key"))
    if only is not None:
        columns = columns.filter(pl.col("key").is_in(only))
    return [
        Live(path=path, partition=key, digest=PurePosixPath(path).stem, rows=rows, bytes=size)
        for path, rows, size, key in columns.sort("key", "path").iter_rows()
    ]


def live(delta: DeltaTable, only: Sequence[str] | None = None) -> dict[str, Live]:
    """The same by partition."""
    return {each.partition: each for each in named_files(delta, only)}


class DeltaLog:
    """The log of each table. Commits that were read once are kept: they never change."""

    def __init__(self, files: FileStore, use_case: str) -> None:
        """Opens nothing."""
        self._files = files
        self._use_case = use_case
        self._known: dict[str, tuple[int, list[Commit]]] = {}
        self._read: dict[str, DeltaTable] = {}

    def ref(self, table: str, version: int) -> SnapshotRef:
        """The snapshot of a version."""
        return SnapshotRef(store="delta", use_case=self._use_case, table=table, version=str(version))

    def tables(self) -> list[str]:
        """Every table that was ever published to."""
        return [name for name in self._files.folders() if not name.startswith("_")]

    def open(self, table: str, version: int | None = None) -> DeltaTable | None:
        """The newest or the given version; None when there is no such table.

        Raises:
            NotFoundError: there is a table, but no such version; or the table's name is not a name.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError, TableNotFoundError

        checked_table(table)
        with self._answering(table):
            try:
                return DeltaTable(self._files.uri(table), version=version, storage_options=self._files.delta_options)
            except TableNotFoundError:
                return None
            except DeltaError:
                newest = self.open(table) if version is not None else None
                if newest is None or version is None or version <= newest.version():
                    raise
        raise NotFoundError(
            explain(
                self.ref(table, version).id, "there is no such snapshot", allowed=f"versions up to {newest.version()}"
            )
        )

    def read(self, table: str, version: int | None = None) -> DeltaTable | None:
        """The same as `open` for those who only look: what the last one opened is not opened again.

        Never committed with, since that would move it to another version under another thread's eyes.
        """
        known = self._read.get(table)
        if known is None or known.version() != version:
            known = self.open(table, version)
            if known is not None:
                self._read[table] = known
        return known

    def at(self, snapshot: SnapshotRef) -> DeltaTable:
        """The version that a snapshot names, to look at.

        Raises:
            NotFoundError: there is none.
        """
        mine = (snapshot.store, snapshot.use_case) == ("delta", self._use_case) and snapshot.version.isdecimal()
        delta = self.read(snapshot.table, int(snapshot.version)) if mine else None
        if delta is None:
            raise NotFoundError(explain(snapshot.id, "there is no such snapshot"))
        return delta

    def create(self, table: str, schema: pl.Schema) -> DeltaTable:
        """An empty table, or the one that another run made in the meantime."""
        from deltalake import DeltaTable
        from deltalake.exceptions import CommitFailedError

        with self._answering(table), contextlib.suppress(CommitFailedError):
            DeltaTable.create(
                self._files.uri(table),
                _with_partition(schema),
                mode="ignore",
                partition_by=["partition"],
                configuration=_CONFIGURATION,
                storage_options=self._files.delta_options,
            )
        delta = self.open(table)
        assert delta is not None, "the table was made a moment ago"
        return delta

    def commit(
        self,
        delta: DeltaTable,
        note: CommitNote,
        *,
        add: Sequence[Live],
        remove: Sequence[Live],
        alone: bool = False,
        columns: pl.Schema | None = None,
    ) -> int | None:
        """One attempt to make a new version out of an opened one.

        Args:
            add: files that lie in the table's folder.
            remove: every file of the partitions of `add` that the opened version names, or those of a revert.
            alone: only when no other commit came since `delta` was opened; else only commits of the same
                partitions are in the way.
            columns: the table's from now on, without `partition`, where they change; any other commit is then in the
                way.

        Returns:
            The version it made, or None when another commit was in the way.
        """
        from deltalake import CommitProperties, Transaction
        from deltalake.exceptions import CommitFailedError, DeltaError
        from deltalake.transaction import AddAction, RemoveAction

        now = int(datetime.now(UTC).timestamp() * 1000)
        actions: list[Any] = []
        if columns is None:
            actions += [RemoveAction(old.path, True, now, old.bytes, {"partition": old.partition}) for old in remove]
        for new in add:
            stats = json.dumps({"numRecords": new.rows})
            actions.append(AddAction(new.path, new.bytes, {"partition": new.partition}, now, True, stats))
        touched = sorted({part.partition for part in (*add, *remove)})
        text = note.model_dump_json()
        base = delta.version()
        failure: Exception | None = None
        with self._answering(note.table):
            try:
                delta.create_write_transaction(
                    actions,
                    # delta-rs writes other columns down in this mode alone, which removes the partitions' files itself.
                    mode="append" if columns is None else "overwrite",
                    schema=delta.schema() if columns is None else _delta_schema(columns),
                    partition_by=["partition"],
                    partition_filters=None if columns is None else [("partition", "in", touched)],
                    commit_properties=CommitProperties(
                        custom_metadata={_NOTE: text},
                        max_commit_retries=0 if alone else _RETRIES,
                        app_transactions=[Transaction(name, base + 1) for name in touched],
                    ),
                )
            except CommitFailedError:
                pass
            except (DeltaError, OSError) as error:
                failure = error  # perhaps only of the checkpoint that follows the commit, or of the reply
            # Other commits may have come before or after ours, and a request that was sent twice finds its own first
            # attempt in the way: ours is the version with our words.
            delta.update_incremental()
            entries = delta.history(limit=delta.version() - base) if delta.version() > base else []
            made = next((int(entry["version"]) for entry in entries if entry.get(_NOTE) == text), None)
            if made is None and failure is not None:
                raise failure
        return made

    def history(self, table: str) -> list[Commit]:
        """Every commit of ours, newest first."""
        delta = self.open(table)
        if delta is None:
            return []
        seen, commits = self._known.get(table, (0, []))
        if delta.version() > seen:
            with self._answering(table):
                entries = delta.history(limit=delta.version() - seen)
            commits = [self._commit(table, entry) for entry in entries if _NOTE in entry] + commits
            self._known[table] = delta.version(), commits
        return list(commits)

    def foreign(self, table: str) -> list[int]:
        """Versions that no publish made: somebody wrote to the table past the store."""
        delta = self.open(table)
        if delta is None:
            return []
        with self._answering(table):
            entries = delta.history()
        return [entry["version"] for entry in entries if _NOTE not in entry and entry["version"] > 0]

    def _commit(self, table: str, entry: dict[str, Any]) -> Commit:
        at = datetime.fromtimestamp(entry["timestamp"] / 1000, UTC)
        note = json.loads(entry[_NOTE])
        return Commit.model_validate({**note, "snapshot": self.ref(table, entry["version"]), "at": at})

    @contextlib.contextmanager
    def _answering(self, table: str) -> Iterator[None]:
        from deltalake.exceptions import DeltaError

        try:
            yield
        except (DeltaError, OSError) as error:
            raise unavailable(f"{self._use_case}/{table}", error) from error


def _with_partition(columns: pl.Schema) -> pl.Schema:
    return pl.Schema([*columns.items(), ("partition", pl.String())])


def _delta_schema(columns: pl.Schema) -> Schema:
    from deltalake import Schema

    return Schema.from_arrow(pl.DataFrame(schema=_with_partition(columns)).to_arrow().schema)
