"""The ports of data: where it comes from, where it is kept, who judges it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pipelines.records import (
    Check,
    Commit,
    Finding,
    Pin,
    Publication,
    PublishedPartition,
    Quarantined,
    RunInfo,
    SnapshotRef,
    SourceFile,
    StagedPartition,
    Tombstone,
    ValidationReport,
)
from pipelines.spec import UseCase

if TYPE_CHECKING:
    import polars as pl

#: The partition key of a table that has one file, not one a partition.
STATIC = "static"


@dataclass(frozen=True, kw_only=True, slots=True)
class LandedFrame:
    """A landed partition, read: columns, types and order are the spec's."""

    frame: pl.DataFrame
    sources: tuple[SourceFile, ...]
    problems: tuple[Check, ...]
    """Values that could not be read as the spec's type (null in `frame`), one check a column."""


class DataSource(Protocol):
    """Where source systems drop a use case's files."""

    def partitions(self, spec: UseCase, table: str) -> list[str]:
        """The keys whose files are there, sorted; `[STATIC]` for a static table."""
        ...

    def files(self, spec: UseCase, table: str, partition: str) -> tuple[SourceFile, ...]:
        """The partition's files with their digests, unread; empty when there are none."""
        ...

    def local_path(self, file: SourceFile) -> Path:
        """Where a file that `files` or `read` named lies on this machine."""
        ...

    def read(self, spec: UseCase, table: str, partition: str) -> LandedFrame:
        """Reads one partition, strictly.

        Raises:
            MissingInput: there is no file.
            InputError: the file as a whole cannot be read as the spec says: truncated, another encoding, columns
                missing or extra, over the byte or row cap.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Draft:
    """A partition that is to be staged: a frame, or what writes a file without ever having all rows in memory."""

    partition: str
    frame: pl.DataFrame | None = None
    write: Callable[[Path], int] | None = None
    """In the place of `frame`: writes the partition's Parquet file, and gives its rows. A store calls it once, before
    it asks for the next draft."""
    sources: tuple[SourceFile, ...] = ()
    problems: tuple[Check, ...] = ()


class SnapshotStore(Protocol):
    """Versioned tables of one use case. A partition becomes visible only by `publish`.

    A process may die at any point of any call: readers then see the state before the call or after it, never
    between, and the same call again ends in the state after it. A server that does not answer, or answers with an
    error after it did the work, is such a point too: what happened is looked up before anything is tried again.
    """

    # -- writing: stage, audit, publish ------------------------------------------------------------------------------

    def stage(self, table: str, drafts: Iterable[Draft], run: RunInfo) -> tuple[StagedPartition, ...]:
        """Writes partitions where no reader looks, one at a time. The same frame gives the same digest.

        What one call stages is published together or in parts, but not together with another call's. Each call starts
        from the present main, so a run that lost a race is helped by staging again.

        Raises:
            NotFoundError: a table's or a partition's name is not a name.
        """
        ...

    def read_staged(self, staged: StagedPartition) -> pl.LazyFrame:
        """The rows of a staged partition, for its audit.

        Raises:
            NotFoundError: it was discarded or swept.
            IntegrityError: the staged bytes are not what was staged.
        """
        ...

    def local(self, staged: StagedPartition) -> Path:
        """The staged Parquet file on this machine, for a validator that reads files. Not to be written to.

        Raises:
            NotFoundError: it was discarded or swept.
            IntegrityError: the staged bytes are not what was staged.
        """
        ...

    def discard(self, staged: StagedPartition) -> None:
        """Deletes a staged partition; nothing happens when it is gone already."""
        ...

    def publish(
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
        """Makes the staged partitions visible in one atomic commit; replaces partitions of the same key.

        Partitions whose published digest is the staged one already are left alone (`unchanged`); when that is all
        of them there is no commit. This is a compare-and-set: a partition that is no longer what it was when it was
        staged is not replaced.

        Args:
            reports: the passing audit of each staged partition, in the same order.
            provenance: kept in the commit (JSON values).
            absent: fail when any of the partitions is published already, whenever that was.
            suite: digest of the suite that must have judged, where that can be said beforehand.
            wider: whether the partitions may have columns that the table has not. It has them from this commit on, and
                they are null in its other partitions; a snapshot from before has the columns that it had.

        Raises:
            AuditError: a report is missing, failed, or is not of exactly these bytes and this suite.
            IntegrityError: staged bytes are not what was staged.
            NotFoundError: a staged partition was discarded or swept.
            SchemaMismatch: the columns are not the published table's.
            ConflictError: another run published one of these partitions since it was staged.
            StrayWriteError: somebody wrote to main without a publish (lakeFS).
            UnavailableError: the server did not answer; the same call again finds out what happened.
        """
        ...

    def revert(self, to: SnapshotRef, run: RunInfo, *, reason: str) -> Publication:
        """Makes the table hold what `to` held, in one new commit; history stays. A repeat makes no commit.

        Raises:
            NotFoundError: there is no such snapshot. RemovedError: bytes that it needs were erased or collected.
            ConflictError: another run published at the same time.
        """
        ...

    # -- reading -----------------------------------------------------------------------------------------------------

    def head(self, table: str) -> SnapshotRef | None:
        """The newest snapshot, or None when nothing was ever published."""
        ...

    def partitions(self, snapshot: SnapshotRef) -> dict[str, PublishedPartition]:
        """What the snapshot holds, in key order.

        Raises:
            NotFoundError: there is no such snapshot.
        """
        ...

    def scan(
        self, snapshot: SnapshotRef, partitions: Sequence[str] | None = None, columns: Sequence[str] | None = None
    ) -> pl.LazyFrame:
        """The rows of a snapshot, in key order and then as staged, with a `partition` column in front.

        Lazy: columns and predicates reach the files, and only the named partitions' files are opened.

        Raises:
            NotFoundError: no such snapshot, or one of the partitions is not in it.
            RemovedError: bytes that it needs were erased or collected.
        """
        ...

    def history(self, table: str) -> list[Commit]:
        """Every commit, newest first."""
        ...

    def notes(self, snapshot: SnapshotRef, partitions: Sequence[str], name: str) -> dict[str, str]:
        """What the writers of partition files noted in them under a name; no entry where nothing was noted.

        Raises:
            NotFoundError: no such snapshot, or one of the partitions is not in it.
            RemovedError: bytes that it needs were erased or collected.
        """
        ...

    # -- keeping and removing ----------------------------------------------------------------------------------------

    def pin(self, name: str, snapshot: SnapshotRef, *, reason: str) -> Pin:
        """Keeps a snapshot from being collected. The same pin again is no error.

        Raises:
            ConflictError: the name pins another snapshot.
            NotFoundError: there is no such snapshot, or the name is not a name.
        """
        ...

    def unpin(self, name: str) -> None:
        """Removes a pin; nothing happens when there is none."""
        ...

    def pins(self) -> list[Pin]:
        """Every pin of the use case, by name."""
        ...

    def held(self, table: str) -> list[PublishedPartition]:
        """Every distinct partition file that any snapshot of the table names and that is still stored."""
        ...

    def read_held(self, table: str, part: PublishedPartition) -> pl.LazyFrame:
        """The rows of one of `held`, without a `partition` column.

        Raises:
            NotFoundError: the table's history names no such bytes. RemovedError: they were removed.
        """
        ...

    def purge(self, tombstone: Tombstone) -> None:
        """Removes the tombstone's parts from the disk or the object store, whichever snapshots name them.

        The tombstone is stored first: after a crash, readers are told, and the same call again removes the rest.
        """
        ...

    def tombstones(self) -> list[Tombstone]:
        """Every tombstone of the use case, oldest first."""
        ...

    def sweep(self, before: datetime, *, dry_run: bool = True) -> list[str]:
        """Removes what dead runs left: staged partitions, branches and unnamed files older than `before`.

        Returns:
            What was removed, or would be.
        """
        ...

    # -- quarantine --------------------------------------------------------------------------------------------------

    def quarantine(
        self, report: ValidationReport, staged: StagedPartition | None, originals: Sequence[Path]
    ) -> Quarantined:
        """Sets a bad partition aside with its report and its original files; never readable as data."""
        ...

    def quarantined(self, table: str) -> list[Quarantined]:
        """Everything in quarantine, oldest partition first; a partition may have been healed since."""
        ...

    def originals(self, entry: Quarantined) -> dict[str, bytes]:
        """The original files of a quarantined partition, by name."""
        ...

    def expunge(self, entry: Quarantined, report: ValidationReport) -> None:
        """Removes a quarantined partition's original files for good, and puts `report` in the place of its report."""
        ...

    # -- health ------------------------------------------------------------------------------------------------------

    def examine(self) -> list[Finding]:
        """What is wrong with the store, nothing when all is well."""
        ...

    def repair(self, finding: Finding) -> None:
        """Mends a repairable finding.

        Raises:
            NotFoundError: the finding is of another kind, or is no longer true.
        """
        ...


class Validator(Protocol):
    """Judges staged partitions by their table's expectations."""

    def validate(
        self, spec: UseCase, staged: Sequence[StagedPartition], files: Sequence[Path]
    ) -> list[ValidationReport]:
        """One report a partition, in the same order, of exactly the staged bytes.

        Args:
            files: the staged file of each partition on this machine, as `SnapshotStore.local` gave it.

        Bad data gives a report with `passed=False`, never an exception; an expectation that errs is a failed check.

        Raises:
            SpecError: an expectation does not exist or its arguments do not fit.
            IntegrityError: a staged file is gone, or is not what was staged.
        """
        ...

    def suite(self, spec: UseCase, table: str, partition: str) -> str:
        """Digest of the suite that judges a partition now; every report carries that of the one that judged it."""
        ...

    def report_unreadable(
        self, spec: UseCase, table: str, partition: str, sources: Sequence[SourceFile], check: Check
    ) -> ValidationReport:
        """The failed report of files that could not be read at all, so that no expectation could be tried.

        Its digest is the SHA-256 over the sources' digests, since there are no staged bytes.
        """
        ...
