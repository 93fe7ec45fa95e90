"""From a run's branch to main: compare, read the bytes again, compare columns, merge."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from typing import Literal

import polars as pl

from pipelines.audits import conflict, overtaken
from pipelines.backends.lakefs_client import MAIN, Repository, Stored
from pipelines.backends.lakefs_layout import Held, digest_of, schema_path
from pipelines.backends.lakefs_merge import AUDIT, merge, notes
from pipelines.backends.lakefs_records import Records
from pipelines.backends.lakefs_staging import Prepared, Staging
from pipelines.columns import admitted
from pipelines.errors import ConflictError, NotFoundError, StrayWriteError, TerminalError, explain
from pipelines.failpoints import failpoint
from pipelines.records import Audit, CommitNote, RunInfo, StagedPartition

_ATTEMPTS = 10


class Publishing:
    """The publishes of one use case."""

    def __init__(self, repository: Repository, records: Records, staging: Staging, use_case: str) -> None:
        """Asks nothing yet."""
        self._repository = repository
        self._records = records
        self._staging = staging
        self._use_case = use_case

    def publish(
        self,
        table: str,
        staged: Sequence[StagedPartition],
        audits: Mapping[str, Audit],
        run: RunInfo,
        *,
        provenance: Mapping[str, object],
        absent: bool,
        kind: Literal["publish", "erase"],
        wider: bool,
    ) -> tuple[str, set[str]]:
        """Publishes what was audited.

        Returns:
            The commit of main that holds it, and the keys of the partitions that were not published before.
        """
        where = f"{self._use_case}/{table}"
        area = _area(where, staged)
        for _ in range(_ATTEMPTS):
            main = self._repository.head(MAIN)
            if main is None:
                raise NotFoundError(explain(where, "nothing was ever staged here"))
            self._refuse_unaudited(where, main)
            now = self._present(main, table, [part.partition for part in staged])
            changed = [part for part in staged if now[part.partition] != part.digest]
            if (lost := overtaken(changed, now, absent=absent)) is not None:
                raise conflict(self._use_case, lost, self._winner(lost), absent=absent)
            if not changed:
                self._staging.finish(table, None, area, staged)
                return main, set()
            prepared = self._staging.prepare(table, area, changed)
            found = self._staging.verify(table, prepared.source, changed)
            self._refuse_other_columns(table, main, prepared, changed, found, wider=wider)
            failpoint("publish.verified")
            note = CommitNote(
                kind=kind,
                table=table,
                run=run,
                partitions={part.partition: part.digest for part in changed},
                audits={part.partition: audits[part.partition] for part in changed},
                provenance=dict(provenance),
            )
            failpoint("publish.linked")
            merged = merge(self._repository, where, prepared.source, prepared.base, area, note)
            if merged is not None:
                failpoint("publish.committed")
                self._staging.finish(table, prepared, area, staged)
                return merged, set(note.partitions)
            # Main has changed meanwhile: it holds our bytes by now, or another's, or only another's columns.
        raise ConflictError(explain(where, f"{_ATTEMPTS} merges lost to other writers"))

    def _refuse_unaudited(self, where: str, main: str) -> None:
        """What somebody merged by hand and past the gate would become visible with this publish."""
        commit = self._repository.get_commit(main)
        if commit is None or AUDIT not in commit.metadata:
            raise StrayWriteError(
                explain(
                    f"{where} on lakefs://{self._repository.name}/{MAIN}",
                    f"commit {main[:12]} was merged without a publish",
                    remedy=f"see what it changed, then `overnight doctor {self._use_case} --repair`",
                )
            )

    def _present(self, version: str, table: str, keys: Sequence[str]) -> dict[str, str | None]:
        """Digests at a commit of main; None also for bytes that were removed."""
        found, gone = Held(self._repository, version, table).many(keys), self._records.removed()
        return {
            key: None if stored is None or stored.address in gone else digest_of(stored)
            for key, stored in found.items()
        }

    def _winner(self, part: StagedPartition) -> str:
        for entry in notes(self._repository, self._use_case, part.table):
            if part.partition in {*entry.partitions, *entry.removed}:
                return f"run {entry.run.run_id!r} of {entry.run.dag_id!r}"
        return "another run"

    def _refuse_other_columns(
        self,
        table: str,
        main: str,
        prepared: Prepared,
        changed: Sequence[StagedPartition],
        found: Mapping[str, Stored],
        *,
        wider: bool,
    ) -> None:
        path = schema_path(table)
        stated = self._repository.read(main, path) or self._repository.read(prepared.source, path)
        if stated is None:
            return
        allowed = pl.Schema(pl.read_parquet_schema(io.BytesIO(stated)))
        for part in changed:
            if found[part.partition].metadata.get("columns") == hashlib.sha256(stated).hexdigest():
                continue
            # Another release of Polars may have written the same columns as other bytes.
            schema = pl.Schema(pl.read_parquet_schema(self._staging.local(part)))
            admitted(f"{self._use_case}/{table}/{part.partition}", allowed, schema, wider=wider)


def _area(where: str, staged: Sequence[StagedPartition]) -> str:
    areas = sorted({part.area for part in staged})
    if len(areas) > 1:
        raise TerminalError(
            explain(
                where,
                f"one publish of what {len(areas)} calls of stage wrote",
                allowed="partitions of one call, all of them or some",
                remedy="stage them in one call, or publish them one call after the other",
            )
        )
    return areas[0]
