"""The steps of upkeep: snapshots, provenance, and the erasure of a subject."""

from __future__ import annotations

from datetime import UTC, datetime

from pipelines.records import Collection, Erasure, Pin, Publication, Replay, SnapshotDiff, SnapshotRef, Trace
from pipelines.runtime.adapters import Adapters


class Upkeep(Adapters):
    """What is kept, where it came from, and what is removed."""

    def all_tables(self) -> tuple[str, ...]:
        """Every table of the store: what lands, the predictions, the logs."""
        from pipelines.steps import provenance

        return provenance.all_tables(self.spec)

    def resolve(self, table: str, name: str) -> SnapshotRef:
        """The snapshot that a name stands for; see `steps.snapshots.resolve`."""
        from pipelines.steps import snapshots

        return snapshots.resolve(self.store, table, name)

    def diff(self, table: str, before: str, after: str) -> SnapshotDiff:
        """What changed between two named snapshots."""
        from pipelines.steps import snapshots

        return snapshots.diff(self.store, self.resolve(table, before), self.resolve(table, after))

    def revert(self, table: str, to: str, reason: str) -> Publication:
        """Makes a table hold what it held; see `steps.snapshots.revert`."""
        from pipelines.steps import snapshots

        return snapshots.revert(self.store, self.resolve(table, to), self.run, reason=reason)

    def pin(self, name: str, table: str, snapshot: str, reason: str) -> Pin:
        """Keeps a named snapshot under another name; see `steps.snapshots.pin`."""
        from pipelines.steps import snapshots

        return snapshots.pin(self.store, name, self.resolve(table, snapshot), reason=reason)

    def collect(self, keep_since: datetime, *, dry_run: bool = True) -> Collection:
        """Removes what nobody needs; see `steps.snapshots.collect` and `steps.pieces.sweep`."""
        from pipelines.steps import pieces, snapshots

        now = datetime.now(UTC)
        done = snapshots.collect(
            self.store,
            self.registry,
            self.all_tables(),
            keep_since,
            self.run,
            dry_run=dry_run,
            now=now,
        )
        old = pieces.sweep(self._scores, min(keep_since, now - snapshots.LIVE), dry_run=dry_run)
        return done.model_copy(update={"swept": (*done.swept, *old)})

    def trace(self, name: str) -> Trace:
        """Where something came from and what became of it; see `steps.tracing.trace`."""
        from pipelines.steps import tracing

        return tracing.trace(self.spec, self.store, self.registry, name)

    def replay(self, partition: str) -> Replay:
        """Scores predictions again from what was recorded; see `steps.replay.replay`."""
        from pipelines.steps import replay

        return replay.replay(self.spec, self.store, self.registry, partition, self.run)

    def erase(self, key: str, reason: str, *, act: bool) -> Erasure:
        """Removes a subject for good, or only says where it is; see `steps.erasure.erase`.

        Args:
            key: `column=value`.
        """
        from pipelines.steps import erasure

        settings = self.settings
        return erasure.erase(
            self.spec,
            self.store,
            self.source,
            self.registry,
            erasure.parse_subject(self.spec, key),
            erasure.Places(reports=settings.reports, work=settings.work, cache=settings.cache),
            self.run,
            reason=reason,
            act=act,
        )
