"""Partitions on their way to a snapshot, and snapshots themselves."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal, Self

from pipelines.errors import NotFoundError, explain
from pipelines.records.base import Record, RunInfo

StoreName = Literal["delta", "lakefs"]
_SNAPSHOT_ID = re.compile(r"(delta|lakefs):([a-z][a-z0-9_]{0,47})/([a-z][a-z0-9_]{0,47})@([0-9a-f]{1,64})")


class SourceFile(Record):
    """A file of the landing zone, as it was read."""

    path: str
    sha256: str
    bytes: int


class Check(Record):
    """One thing that was checked, and what was found."""

    name: str
    column: str | None = None
    passed: bool
    observed: str
    """What was found, for a person."""
    allowed: str = ""
    """What would have passed."""


class StagedPartition(Record):
    """A partition's bytes, written and digested, not visible to any reader."""

    use_case: str
    table: str
    partition: str
    digest: str
    """BLAKE3 of the staged Parquet file; also its name once it is published."""
    rows: int
    bytes: int
    area: str
    """Where the store keeps it apart: a folder, or a branch of the run's own."""
    base: str | None = None
    """Digest of what main held under this key when this was staged: a publish replaces that and nothing else."""
    sources: tuple[SourceFile, ...] = ()
    problems: tuple[Check, ...] = ()
    """Failed checks that were found while reading: any of them fails the audit."""


class ValidationReport(Record):
    """The audit of exactly one staged partition."""

    use_case: str
    table: str
    partition: str
    digest: str
    """The digest of the bytes that were validated."""
    suite: str
    suite_digest: str
    rows: int
    passed: bool
    checks: tuple[Check, ...]
    sources: tuple[SourceFile, ...] = ()
    html: str | None = None
    """Path of the report that people read."""

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)


class Quarantined(Record):
    """A partition that was set aside: the report says why."""

    use_case: str
    table: str
    partition: str
    report: ValidationReport
    folder: str
    at: datetime | None = None
    """When these bytes were last found bad, by the clock of whoever did (UTC); None: before it was noted."""


class Landing(Record):
    """What `land` found for one table: staged partitions, and those that could not be read at all."""

    table: str
    staged: tuple[StagedPartition, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    missing: tuple[str, ...] = ()
    """Keys whose file is not in the landing zone."""


class Validated(Record):
    """What `validate` decided: passed partitions with their reports, and the quarantined ones."""

    table: str
    staged: tuple[StagedPartition, ...] = ()
    reports: tuple[ValidationReport, ...] = ()
    """The passing report of each staged partition, in the same order."""
    quarantined: tuple[Quarantined, ...] = ()
    missing: tuple[str, ...] = ()


class SnapshotRef(Record):
    """An immutable published version of one table."""

    store: StoreName
    use_case: str
    table: str
    version: str
    """Delta: the table's version, a number. lakeFS: a commit id of the repository."""

    @property
    def id(self) -> str:
        """A name that a person can type, such as `delta:flights/rows@12`."""
        return f"{self.store}:{self.use_case}/{self.table}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The snapshot that an id names; whether there is one is the store's to say.

        Raises:
            NotFoundError: the text has not the form of an id.
        """
        found = _SNAPSHOT_ID.fullmatch(text)
        if found is None:
            raise NotFoundError(
                explain("snapshot", f"{text!r} is not a snapshot's id", allowed="ids like delta:flights/rows@12")
            )
        store, use_case, table, version = found.groups()
        return cls.model_validate({"store": store, "use_case": use_case, "table": table, "version": version})


class PublishedPartition(Record):
    """One partition as a snapshot holds it."""

    partition: str
    digest: str
    rows: int


class Publication(Record):
    """What a publish did: a repeat of the same bytes is `unchanged`."""

    snapshot: SnapshotRef
    published: tuple[PublishedPartition, ...] = ()
    unchanged: tuple[PublishedPartition, ...] = ()

    @property
    def partitions(self) -> tuple[PublishedPartition, ...]:
        """All partitions that the call was about, in key order."""
        return tuple(sorted(self.published + self.unchanged, key=lambda part: part.partition))


class Audit(Record):
    """A passing validation report, as a commit keeps it."""

    digest: str
    """SHA-256 of the report's JSON."""
    suite: str
    suite_digest: str
    checks: int
    rows: int
    sources: tuple[SourceFile, ...] = ()


class CommitNote(Record):
    """What a publisher writes into a commit: who changed what, and the audits that let it through."""

    kind: Literal["publish", "revert", "erase"] = "publish"
    table: str
    run: RunInfo
    partitions: dict[str, str]
    """Digest by partition, for what this commit replaced or added."""
    removed: tuple[str, ...] = ()
    """Partitions that are no longer there (a revert to before they came)."""
    audits: dict[str, Audit]
    """The audit of each of `partitions`."""
    provenance: dict[str, Any] = {}


class Commit(CommitNote):
    """One entry of a table's history."""

    snapshot: SnapshotRef
    """The version that the commit made."""
    at: datetime
    """When it was committed, by the store's clock (UTC): for people, and for how long old snapshots are kept."""


class Pin(Record):
    """A snapshot that is kept by name: never collected."""

    name: str
    snapshot: SnapshotRef
    reason: str


class Tombstone(Record):
    """Bytes that were removed for good, and why. It names no person."""

    id: str
    kind: Literal["erased", "collected"]
    table: str
    parts: tuple[PublishedPartition, ...]
    """What is gone; `digest` names the bytes in commits that stay."""
    reason: str
    run: RunInfo
    at: datetime


class Finding(Record):
    """Something wrong with a store that a person should know about."""

    name: str
    """Such as `stray_write`."""
    where: str
    what: str
    remedy: str
    repairable: bool
    """Whether `overnight doctor --repair` can mend it."""


class SnapshotDiff(Record):
    """From one snapshot of a table to another, by partition."""

    before: SnapshotRef
    after: SnapshotRef
    added: tuple[PublishedPartition, ...] = ()
    removed: tuple[PublishedPartition, ...] = ()
    replaced: tuple[tuple[PublishedPartition, PublishedPartition], ...] = ()
    """Old and new."""

    @property
    def rows(self) -> int:
        """Rows of the later snapshot less rows of the earlier one."""
        more = sum(part.rows for part in self.added) - sum(part.rows for part in self.removed)
        return more + sum(new.rows - old.rows for old, new in self.replaced)


class Kept(Record):
    """A snapshot that is never collected, and every reason why."""

    snapshot: SnapshotRef
    reasons: tuple[str, ...]


class CollectedTable(Record):
    """What a collection removes of one table, or would."""

    table: str
    parts: tuple[PublishedPartition, ...]
    """Partition files that no kept snapshot names."""
    kept: int
    """Partition files that stay."""

    @property
    def rows(self) -> int:
        """Rows of what goes."""
        return sum(part.rows for part in self.parts)


class Collection(Record):
    """What `collect` did, or in a dry run would do."""

    dry_run: bool
    keep_since: datetime
    """Whatever was visible at this instant or later stays."""
    tables: tuple[CollectedTable, ...]
    swept: tuple[str, ...] = ()
    """What dead runs left behind."""
