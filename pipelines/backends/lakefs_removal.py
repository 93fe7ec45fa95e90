"""Removing bytes for good: of erased and collected partitions, and of what dead runs left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipelines.backends.lakefs_blocks import Blocks
from pipelines.backends.lakefs_client import Repository, Stored
from pipelines.backends.lakefs_layout import RUN, checked_digest, created, part_path
from pipelines.backends.lakefs_records import Records
from pipelines.backends.lakefs_staging import Staging
from pipelines.errors import NotFoundError, RemovedError, explain
from pipelines.failpoints import failpoint
from pipelines.records import Commit, Finding, PublishedPartition, Tombstone

UNFINISHED = "unfinished_purge"


class Removal:
    """What a repository's history names, and how it is taken away."""

    def __init__(self, repository: Repository, records: Records, blocks: Blocks, staging: Staging, cache: Path) -> None:
        """Asks nothing yet."""
        self._repository = repository
        self._records = records
        self._blocks = blocks
        self._staging = staging
        self._cache = cache

    # -- what is there ---------------------------------------------------------------------------------------------

    def held(self, history: Sequence[Commit]) -> list[PublishedPartition]:
        """Every partition file that a commit brought and whose bytes are still there."""
        parts = {
            (key, digest): PublishedPartition(partition=key, digest=digest, rows=commit.audits[key].rows)
            for commit in history
            for key, digest in commit.partitions.items()
        }
        gone = self._records.removed()
        named = {(part.partition, part.digest) for stone in gone.values() for part in stone.parts}
        return [
            part
            for name, part in sorted(parts.items())
            if name not in named or any(stored.address not in gone for stored in self._versions(history, part))
        ]

    def readable(
        self, where: str, history: Sequence[Commit], part: PublishedPartition, gone: Mapping[str, Tombstone]
    ) -> Stored:
        """A partition's file as the newest commit has it that brought these bytes and still has them.

        Raises:
            NotFoundError: no commit ever brought them. RemovedError: they were removed.
        """
        versions = self._versions(history, part)
        for stored in versions:
            if stored.address not in gone:
                return stored
        where = f"{where}, partition {part.partition}"
        if not versions:
            raise NotFoundError(explain(where, f"no snapshot of the table names {part.digest[:12]}"))
        stone = gone[versions[0].address]
        raise RemovedError(
            explain(
                where,
                f"its bytes were {stone.kind} on {stone.at:%Y-%m-%d} (tombstone {stone.id}: {stone.reason})",
                remedy="read a later snapshot, or other partitions of this one",
            )
        )

    def _versions(self, history: Sequence[Commit], part: PublishedPartition) -> list[Stored]:
        """The file in each commit that brought these bytes, newest first."""
        path = part_path(history[0].table, part.partition) if history else ""
        found = [
            self._repository.stat(commit.snapshot.version, path)
            for commit in history
            if commit.partitions.get(part.partition) == part.digest
        ]
        return [stored for stored in found if stored is not None]

    # -- taking away -----------------------------------------------------------------------------------------------

    def purge(self, tombstone: Tombstone, history: Sequence[Commit]) -> None:
        """Removes the bytes of a tombstone's parts, on main and on the branches of runs, after telling readers."""
        for part in tombstone.parts:
            part_path(tombstone.table, part.partition)
            checked_digest(part.digest)
        addresses = {stored.address for part in tombstone.parts for stored in self._versions(history, part)}
        paths = {(part_path(tombstone.table, part.partition), part.digest) for part in tombstone.parts}
        for branch in self._repository.branches(RUN):
            for path, digest in paths:
                stored = self._repository.stat(branch, path)
                if stored is not None and stored.metadata.get("blake3") == digest:
                    addresses.add(stored.address)
        for lines in self._records.dropped().values():
            addresses |= {line["address"] for line in lines if (line["path"], line.get("blake3")) in paths}
        buried = self._records.bury(tombstone, addresses)
        failpoint("purge.told")
        self._blocks.remove(sorted(buried))
        failpoint("purge.removed")
        for part in tombstone.parts:
            (self._cache / f"{part.digest}.parquet").unlink(missing_ok=True)
        self._records.bury(tombstone, (), finished=True)

    def examine(self) -> list[Finding]:
        """Tombstones whose bytes may still be there."""
        return [
            Finding(
                name=UNFINISHED,
                where=stone.id,
                what=f"not all bytes of {len(stone.parts)} partition files of {stone.table} were removed",
                remedy="repair: the rest is removed",
                repairable=True,
            )
            for stone in self._records.unfinished()
        ]

    def sweep(self, before: datetime, *, dry_run: bool) -> list[str]:
        """Removes the branches of dead runs, bytes that were written down, and old files on this machine."""
        found = []
        for branch in self._repository.branches(RUN):
            made = created(branch)
            if made is not None and made < before:
                found.append(f"lakefs://{self._repository.name}/{branch}/")
                if not dry_run:
                    self._staging.delete_branch(branch)
        for path, lines in self._records.dropped().items() if self._blocks.reachable else ():
            found += [line["address"] for line in lines]
            if not dry_run:
                self._blocks.remove(line["address"] for line in lines)
                self._records.forget(path)
        for file in sorted(self._cache.glob("*")):
            if datetime.fromtimestamp(file.stat().st_mtime, UTC) < before:
                found.append(str(file))
                if not dry_run:
                    file.unlink(missing_ok=True)
        return found
