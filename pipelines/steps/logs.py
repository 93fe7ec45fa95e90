"""Append-only logs as tables of the snapshot store: an entry is a partition that may be published once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.ports import Draft, SnapshotStore
from pipelines.records import Check, RunInfo, ValidationReport

if TYPE_CHECKING:
    import polars as pl


def append(
    store: SnapshotStore,
    use_case: str,
    table: str,
    name: str,
    entry: pl.DataFrame,
    checks: Sequence[Check],
    run: RunInfo,
    *,
    suite: str,
    suite_digest: str,
) -> None:
    """Publishes one row under a name that must be free; what decided it is its audit. The same row again is no error.

    Raises:
        AuditError: a check did not pass.
        ConflictError: the name is taken by another row.
    """
    (staged,) = store.stage(table, [Draft(partition=name, frame=entry)], run)
    report = ValidationReport(
        use_case=use_case,
        table=table,
        partition=name,
        digest=staged.digest,
        suite=suite,
        suite_digest=suite_digest,
        rows=staged.rows,
        passed=all(check.passed for check in checks),
        checks=tuple(checks),
    )
    store.publish(table, [staged], [report], run, absent=True)
