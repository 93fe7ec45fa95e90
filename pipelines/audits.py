"""What lets a partition be published, and which publishes lose: the same rules for every snapshot store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from pipelines.errors import AuditError, ConflictError, explain
from pipelines.records import Audit, StagedPartition, ValidationReport


def audits_of(
    use_case: str,
    table: str,
    staged: Sequence[StagedPartition],
    reports: Sequence[ValidationReport],
    suite: str | None = None,
) -> dict[str, Audit]:
    """The audit of each staged partition, as its commit keeps it.

    Args:
        reports: one for each staged partition, in the same order.
        suite: digest of the suite that must have judged.

    Raises:
        AuditError: a report is missing, failed, checked nothing, or is not of exactly these bytes and this suite;
            nothing is staged, or one partition twice.
    """
    where = f"{use_case}/{table}"
    if not staged:
        raise AuditError(explain(where, "a publish of no partition at all"))
    if len(staged) != len(reports):
        raise AuditError(explain(where, f"{len(staged)} partitions, {len(reports)} audits"))
    if len({part.partition for part in staged}) != len(staged):
        raise AuditError(explain(where, "a partition is staged twice in one publish"))
    for part, report in zip(staged, reports, strict=True):
        if suite is not None and report.suite_digest != suite:
            what = f"it was audited with another suite ({report.suite_digest[:12]}) than is asked for now"
            raise AuditError(explain(f"{where}/{part.partition}", what, allowed=suite[:12], remedy="validate again"))
    return {part.partition: _audit(use_case, table, part, report) for part, report in zip(staged, reports, strict=True)}


def overtaken(
    staged: Sequence[StagedPartition], now: Mapping[str, str | None], *, absent: bool
) -> StagedPartition | None:
    """The first partition that may not be replaced: it no longer holds what its staging saw, or was to hold nothing.

    Args:
        now: digest of each partition as it is published; None where nothing is.
    """
    for part in staged:
        found = now[part.partition]
        if found != part.base or (absent and found is not None):
            return part
    return None


def conflict(use_case: str, part: StagedPartition, winner: str, *, absent: bool) -> ConflictError:
    """What an overtaken publish is told."""
    what = "published it already" if absent else "published other rows since this was staged"
    return ConflictError(
        explain(
            f"{use_case}/{part.table}/{part.partition}",
            f"{winner} {what}",
            remedy="stage it again: clear the run from its first task",
        )
    )


def _audit(use_case: str, table: str, part: StagedPartition, report: ValidationReport) -> Audit:
    where = f"{use_case}/{table}/{part.partition}"
    if (part.use_case, part.table) != (use_case, table):
        raise AuditError(explain(where, f"staged for {part.use_case}/{part.table}"))
    if (report.use_case, report.table, report.partition) != (part.use_case, part.table, part.partition):
        raise AuditError(explain(where, f"the audit is of {report.use_case}/{report.table}/{report.partition}"))
    if report.digest != part.digest or report.rows != part.rows:
        raise AuditError(explain(where, "the audit is of other bytes", remedy="validate again"))
    if not report.passed or report.failed:
        failed = ", ".join(check.name for check in report.failed)
        raise AuditError(explain(where, f"the audit did not pass ({failed})"))
    if not report.checks:
        raise AuditError(explain(where, "the audit checked nothing"))
    return Audit(
        digest=hashlib.sha256(report.model_dump_json(exclude={"html"}).encode()).hexdigest(),
        suite=report.suite,
        suite_digest=report.suite_digest,
        checks=len(report.checks),
        rows=report.rows,
        sources=report.sources,
    )
