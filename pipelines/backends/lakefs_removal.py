"""Removing bytes for good: of erased and collected partitions, and of what dead runs left."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from pipelines.backends.lakefs_blocks import Blocks
from pipelines.backends.lakefs_client import Repository, Stored
from pipelines.backends.lakefs_layout import RUN, created, part_path
from pipelines.backends.lakefs_records import Records
from pipelines.backends.lakefs_staging import Staging
from pipelines.errors import NotFoundError, RemovedError, explain
from pipelines.records import Commit, PublishedPartition, Tombstone


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
        named = {(part.partition, part.digest) for stone in set(gone.values()) for part in stone.parts}
        return [
            part
            for name, part in sorted(parts.items())
            if name not in named or any(stored.address not in gone for _, stored in self._versions(history, part))
        ]

    def commit_with(self, use_case: str, table: str, history: Sequence[Commit], part: PublishedPartition) -> str:
        """A commit in which a partition's bytes can be read.

        Raises:
            NotFoundError: none ever named them. RemovedError: they were removed.
        """
        gone, versions = self._records.removed(), self._versions(history, part)
        for commit, stored in versions:
            if stored.address not in gone:
                return commit
        where = f"{use_case}/{table}/{part.partition}"
        if versions:
            stone = gone[versions[0][1].address]
            raise RemovedError(explain(where, f"these bytes were {stone.kind} on {stone.at:%Y-%m-%d} ({stone.reason})"))
        raise NotFoundError(explain(where, f"no commit brought bytes of the digest {part.digest[:12]}"))

    def _versions(self, history: Sequence[Commit], part: PublishedPartition) -> list[tuple[str, Stored]]:
        """The commits that brought these bytes, newest first, with the object of each."""
        found = []
        for commit in history:
            if commit.partitions.get(part.partition) == part.digest:
                stored = self._repository.stat(commit.snapshot.version, part_path(commit.table, part.partition))
                if stored is not None:
                    found.append((commit.snapshot.version, stored))
        return found

    # -- taking away -----------------------------------------------------------------------------------------------

    def purge(self, tombstone: Tombstone, history: Sequence[Commit]) -> None:
        """Removes the bytes of a tombstone's parts, on main and on the branches of runs, after telling readers."""
        addresses = {stored.address for part in tombstone.parts for _, stored in self._versions(history, part)}
        paths = {(part_path(tombstone.table, part.partition), part.digest) for part in tombstone.parts}
        for branch in self._repository.branches(RUN):
            for path, digest in paths:
                stored = self._repository.stat(branch, path)
                if stored is not None and stored.metadata.get("sha256") == digest:
                    addresses.add(stored.address)
        for lines in self._records.dropped().values():
            addresses |= {line["address"] for line in lines if (line["path"], line.get("sha256")) in paths}
        self._records.bury(tombstone, sorted(addresses))
        buried = {address for address, stone in self._records.removed().items() if stone.id == tombstone.id}
        self._blocks.remove(sorted(buried))
        for part in tombstone.parts:
            (self._cache / f"{part.digest}.parquet").unlink(missing_ok=True)

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
