"""What the contract tests of `SnapshotStore` share: frames, audits, and the store of each backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from pipelines.backends.delta import DeltaStore
from pipelines.ports import SnapshotStore
from pipelines.records import Check, Publication, RunInfo, StagedPartition, ValidationReport

BACKENDS = ("delta",)
RUN = RunInfo(run_id="test", dag_id="contract", code_version="abc")


def open_store(backend: str, root: Path) -> SnapshotStore:
    """The store of a backend under a folder of the test's own."""
    assert backend == "delta"
    return DeltaStore(root / "snapshots", "uc")


def frame(*values: float) -> pl.DataFrame:
    """A small partition: one row a value."""
    columns = {"key": [f"k{index}" for index in range(len(values))], "value": [float(value) for value in values]}
    return pl.DataFrame(columns, schema={"key": pl.String, "value": pl.Float64})


def audit(staged: StagedPartition, *, passed: bool = True) -> ValidationReport:
    """A report of exactly these bytes."""
    return ValidationReport(
        use_case=staged.use_case,
        table=staged.table,
        partition=staged.partition,
        digest=staged.digest,
        suite="suite",
        suite_digest="0" * 64,
        rows=staged.rows,
        passed=passed,
        checks=(Check(name="looked_at", passed=passed, observed="it"),),
    )


def put(store: SnapshotStore, partition: str, *values: float, table: str = "rows") -> Publication:
    """Stages, audits and publishes one partition."""
    staged = store.stage(table, partition, frame(*values))
    return store.publish(table, [staged], [audit(staged)], RUN)


def content(store: SnapshotStore, table: str = "rows") -> dict[str, list[float]]:
    """What a reader sees: values by partition."""
    head = store.head(table)
    if head is None:
        return {}
    rows = store.scan(head).collect()
    return {key: part.get_column("value").to_list() for (key,), part in _by_partition(rows)}


def _by_partition(rows: pl.DataFrame) -> Sequence[tuple[tuple[str], pl.DataFrame]]:
    return sorted(rows.partition_by("partition", as_dict=True).items())  # type: ignore[arg-type]
