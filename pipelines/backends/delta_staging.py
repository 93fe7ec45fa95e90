"""Where partitions lie before they are published, and how their verified bytes come into a table's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from pipelines.backends.delta_files import FileStore, Seen, gone, is_full, other_bytes, unavailable
from pipelines.backends.delta_log import Live
from pipelines.backends.delta_names import checked_key, checked_table, data_path, staged_path
from pipelines.failpoints import failpoint
from pipelines.parquet import write_draft
from pipelines.ports import Draft
from pipelines.records import StagedPartition


class DeltaStaging:
    """The staged partitions of one use case."""

    def __init__(self, files: FileStore, use_case: str) -> None:
        """Reads nothing."""
        self._files = files
        self._use_case = use_case

    def stage(self, table: str, draft: Draft, current: Mapping[str, Live]) -> StagedPartition:
        """Writes one partition; `current` is what the table holds now."""
        where = f"{self._use_case}/{table}/{checked_key(draft.partition, 'partition')}"
        with self._files.scratch() as scratch:
            try:
                digest, rows = write_draft(draft, scratch)
                size = scratch.stat().st_size
            except (OSError, pl.exceptions.PolarsError) as error:
                if isinstance(error, OSError) or is_full(error):
                    raise unavailable(where, error) from error
                raise
            failpoint("stage.scratched")
            path = staged_path(table, draft.partition, digest)
            self._files.take(scratch, path, digest)
        failpoint("stage.written")
        return StagedPartition(
            use_case=self._use_case,
            table=table,
            partition=draft.partition,
            digest=digest,
            rows=rows,
            bytes=size,
            area=self._files.uri(path).rpartition("/")[0],
            base=current[draft.partition].digest if draft.partition in current else None,
            sources=draft.sources,
            problems=draft.problems,
        )

    def local(self, staged: StagedPartition) -> Path:
        """The file on this machine, verified."""
        return self._files.local(self._locate(staged), staged.digest)

    def discard(self, staged: StagedPartition) -> None:
        """Deletes the staged file and this machine's copy."""
        self._files.delete(_staged(staged))
        self._files.forget(staged.digest)

    def verify(self, staged: StagedPartition) -> Seen:
        """Reads the bytes through, and says how to know them again.

        Raises:
            NotFoundError: they were discarded or swept. IntegrityError: they are not what was staged.
        """
        seen = self._files.see(self._locate(staged))
        if seen.digest != staged.digest:
            raise other_bytes(self._where(staged))
        return seen

    def columns(self, staged: StagedPartition) -> pl.Schema:
        """The columns of the staged file."""
        uri = self._files.uri(self._locate(staged))
        try:
            frame = pl.scan_parquet(uri, hive_partitioning=False, storage_options=self._files.polars_options)
            return frame.collect_schema()
        except FileNotFoundError:
            raise gone(self._where(staged)) from None
        except OSError as error:
            raise unavailable(uri, error) from error

    def place(self, staged: StagedPartition, seen: Seen) -> None:
        """Puts the verified bytes where a commit names them; what lay there before is renewed."""
        moved = self._files.copy(_staged(staged), _target(staged), seen.tag)
        if not moved and self._files.find(_target(staged)) is None:
            raise gone(self._where(staged))

    def settle(self, staged: Sequence[StagedPartition], seen: Mapping[str, Seen]) -> None:
        """Deletes the staged files of published partitions, once the published files are there.

        A collector may have taken bytes that no commit named until a moment ago, or somebody may have damaged them.
        """
        for part in staged:
            found = self._files.find(_target(part))
            if found is None or found.bytes != part.bytes:
                self.place(part, seen[part.partition])
            self.discard(part)

    def _locate(self, staged: StagedPartition) -> str:
        """The staged file; after a crash past the commit, the published one."""
        for path in (_staged(staged), _target(staged)):
            if self._files.find(path) is not None:
                return path
        raise gone(self._where(staged))

    def _where(self, staged: StagedPartition) -> str:
        return f"{self._use_case}/{staged.table}/{staged.partition}"


def _staged(staged: StagedPartition) -> str:
    return staged_path(staged.table, staged.partition, staged.digest)


def _target(staged: StagedPartition) -> str:
    return f"{checked_table(staged.table)}/{data_path(staged.partition, staged.digest)}"
