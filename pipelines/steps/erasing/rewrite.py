"""The newest snapshot of a table without a subject's rows: staged, audited, published as an `erase` commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence

import polars as pl

from pipelines.errors import ConflictError, NotFoundError, UnavailableError, explain
from pipelines.failpoints import failpoint
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import (
    Check,
    PublishedPartition,
    RunInfo,
    SnapshotRef,
    SourceFile,
    StagedPartition,
    ValidationReport,
)
from pipelines.spec import UseCase
from pipelines.steps.erasing.traces import MARK, Traces
from pipelines.steps.inputs import REPLACES
from pipelines.steps.predictions import PREDICTIONS, published_predictions

_ATTEMPTS = 5
#: Partitions that are held in memory at once.
_CHUNK = 32


def rewrite(
    spec: UseCase, store: SnapshotStore, traces: Traces, table: str, run: RunInfo, *, erasure: str, reason: str
) -> None:
    """Publishes each partition of the newest snapshot that holds the subject without it; nothing when none does.

    The commit's provenance says what it replaced, so that the other rows count as the same input to scoring, and keeps
    what was known of predictions: which model made them, of which inputs.

    Raises:
        UnavailableError: other runs published the same partitions again and again.
    """
    for _ in range(_ATTEMPTS):
        head = store.head(table)
        due = _holding(store, traces, table, head) if head is not None else {}
        if head is None or not due:
            return
        staged = store.stage(table, _drafts(store, traces, table, head, due), run)
        try:
            # Staged upon other bytes than those that were read: another run was faster.
            if all(part.base == due[part.partition].digest for part in staged):
                before = _marked(store, traces, table, head, list(due))
                reports = [_audit(spec, store, traces, *pair) for pair in zip(staged, before, strict=True)]
                provenance: dict[str, object] = {
                    "erasure": erasure,
                    "reason": reason,
                    REPLACES: {name: part.digest for name, part in due.items()},
                }
                if table == PREDICTIONS:
                    made = published_predictions(store)
                    provenance["predictions"] = {name: {**made.get(name, {}), "replay": "erased"} for name in due}
                store.publish(table, staged, reports, run, provenance=provenance, kind="erase")
                failpoint("erase.rewritten")
                return
        except (ConflictError, NotFoundError):  # published, or swept, by another run
            pass
        for part in staged:
            store.discard(part)
    raise UnavailableError(
        explain(
            f"{spec.name}/{table}: erasure",
            "other runs keep publishing the same partitions",
            remedy="pause the use case's DAGs, and run it again",
        )
    )


def _holding(store: SnapshotStore, traces: Traces, table: str, head: SnapshotRef) -> dict[str, PublishedPartition]:
    live = store.partitions(head)
    chosen = [name for name in live if traces.may_hold(table, name)]
    if not chosen:
        return {}
    rows = traces.marked(table, store.scan(head, chosen, traces.columns(table)))
    found = rows.filter(pl.col(MARK)).select(pl.col("partition").unique().sort()).collect()
    return {name: live[name] for name in found.get_column("partition")}


def _drafts(
    store: SnapshotStore, traces: Traces, table: str, head: SnapshotRef, due: Mapping[str, PublishedPartition]
) -> Iterator[Draft]:
    sources = _sources(store, table, due)
    for name, rows in zip(due, _marked(store, traces, table, head, list(due)), strict=True):
        yield Draft(partition=name, frame=rows.filter(~pl.col(MARK)).drop(MARK), sources=sources.get(name, ()))


def _marked(
    store: SnapshotStore, traces: Traces, table: str, head: SnapshotRef, names: Sequence[str]
) -> Iterator[pl.DataFrame]:
    """The rows of each partition, marked; a few partitions are read at once."""
    for start in range(0, len(names), _CHUNK):
        chunk = names[start : start + _CHUNK]
        rows = traces.marked(table, store.scan(head, chunk)).collect()
        parts = rows.partition_by("partition", as_dict=True, include_key=False)
        yield from (parts[name,] for name in chunk)


def _sources(
    store: SnapshotStore, table: str, due: Mapping[str, PublishedPartition]
) -> dict[str, tuple[SourceFile, ...]]:
    """The files that each partition was read from, as the audit of its present bytes says."""
    found: dict[str, tuple[SourceFile, ...]] = {}
    for commit in store.history(table):
        for name, part in due.items():
            if commit.partitions.get(name) == part.digest and name in commit.audits:
                found.setdefault(name, commit.audits[name].sources)
    return found


def _audit(
    spec: UseCase, store: SnapshotStore, traces: Traces, staged: StagedPartition, before: pl.DataFrame
) -> ValidationReport:
    """Compares the staged bytes with what they are to replace. No check quotes a value.

    Args:
        before: the marked rows of the present bytes.
    """
    name = staged.partition
    after = store.read_staged(staged).collect()
    theirs = before.get_column(MARK)
    wanted = before.height - int(theirs.sum())
    named = after.lazy().with_columns(pl.lit(name).alias("partition"))
    left = int(traces.marked(staged.table, named).select(pl.col(MARK).sum()).collect().item())
    same = before.filter(~theirs).drop(MARK).equals(after)
    checks = _checks(before.height - after.height, before.height - wanted, left, same=same)
    return ValidationReport(
        use_case=spec.name,
        table=staged.table,
        partition=name,
        digest=staged.digest,
        suite=f"{spec.name}.erasure",
        suite_digest=hashlib.sha256(" ".join(check.name for check in checks).encode()).hexdigest(),
        rows=staged.rows,
        passed=all(check.passed for check in checks),
        checks=tuple(checks),
        sources=staged.sources,
    )


def _checks(removed: int, expected: int, left: int, *, same: bool) -> Sequence[Check]:
    return (
        Check(
            name="only_the_subjects_rows_removed",
            passed=removed == expected > 0,
            observed=f"{removed} rows fewer",
            allowed=f"{expected} rows fewer",
        ),
        Check(name="subject_is_gone", passed=left == 0, observed=f"{left} rows left", allowed="0 rows left"),
        Check(
            name="other_rows_unchanged_and_in_order",
            passed=same,
            observed="the same" if same else "others",
            allowed="the same",
        ),
    )
