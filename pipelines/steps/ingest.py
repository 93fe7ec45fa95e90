"""Ingest: land -> validate -> publish, a table at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pipelines import partitions as keys
from pipelines.errors import InputError, MissingInput, explain
from pipelines.ports import STATIC, DataSource, Draft, SnapshotStore, Validator
from pipelines.records import Check, Landing, Publication, Quarantined, RunInfo, Validated
from pipelines.spec import UseCase


def tables(spec: UseCase) -> tuple[str, ...]:
    """The tables in the order in which an ingest run takes them: what scoring needs first, labels last."""
    first = [name for name in spec.context if name != "rows"]
    return (*first, "rows", *(name for name in spec.tables if name not in {*first, "rows"}))


def table_keys(spec: UseCase, table: str, partitions: Sequence[str]) -> list[str]:
    """The partition keys that an ingest run of `partitions` takes of a table.

    A static table has one key; a table whose files arrive `lag` partitions later is taken that many earlier.
    """
    if spec.tables[table].static:
        return [STATIC]
    lag = spec.tables[table].lag
    return [keys.shift(partition, -lag, spec.granularity) for partition in partitions]


def land(
    spec: UseCase,
    source: DataSource,
    validator: Validator,
    store: SnapshotStore,
    table: str,
    partitions: Sequence[str],
    run: RunInfo,
) -> Landing:
    """Reads what has landed and stages it. A file that cannot be read at all goes to quarantine with its reason.

    Raises:
        MissingInput: not one of the files is there. For a lagged table that is no error in a range, where the
            first keys may lie before its first file.
    """
    quarantined, missing = [], []
    wanted = table_keys(spec, table, partitions)

    def drafts() -> Iterator[Draft]:
        for key in wanted:
            try:
                landed = source.read(spec, table, key)
            except MissingInput:
                missing.append(key)
            except InputError as error:
                quarantined.append(_set_aside(spec, source, validator, store, table, key, str(error)))
            else:
                yield Draft(partition=key, frame=landed.frame, sources=landed.sources, problems=landed.problems)

    staged = store.stage(table, drafts(), run)
    if wanted and len(missing) == len(wanted):
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        raise MissingInput(
            explain(
                f"{spec.name}/{table}",
                f"no file for {shown} in the landing zone",
                allowed=f"files at {spec.tables[table].path}",
                remedy="ask the source for the file, then clear this task",
            )
        )
    return Landing(table=table, staged=staged, quarantined=tuple(quarantined), missing=tuple(missing))


def _set_aside(
    spec: UseCase,
    source: DataSource,
    validator: Validator,
    store: SnapshotStore,
    table: str,
    key: str,
    reason: str,
) -> Quarantined:
    files = source.files(spec, table, key)
    check = Check(name="readable", passed=False, observed=reason, allowed="a file as the spec describes it")
    report = validator.report_unreadable(spec, table, key, files, check)
    return store.quarantine(report, None, [source.local_path(file) for file in files])


def validate(
    spec: UseCase, source: DataSource, validator: Validator, store: SnapshotStore, landing: Landing
) -> Validated:
    """Judges each staged partition; the failed ones go to quarantine with their reports, the others go on."""
    reports = []
    if landing.staged:
        reports = validator.validate(spec, landing.staged, [store.local(staged) for staged in landing.staged])
    judged = list(zip(landing.staged, reports, strict=True))
    aside = [
        store.quarantine(report, staged, [source.local_path(file) for file in staged.sources])
        for staged, report in judged
        if not report.passed
    ]
    passed = [(staged, report) for staged, report in judged if report.passed]
    return Validated(
        table=landing.table,
        staged=tuple(staged for staged, _ in passed),
        reports=tuple(report for _, report in passed),
        quarantined=(*landing.quarantined, *aside),
        missing=landing.missing,
    )


def publish(
    spec: UseCase, validator: Validator, store: SnapshotStore, validated: Validated, run: RunInfo
) -> Publication | None:
    """Publishes what passed, in one commit; None when nothing did.

    Raises:
        AuditError: the expectations were changed since: what passed the old ones may fail the new.
    """
    if not validated.staged:
        return None
    suite = validator.suite(spec, validated.table, validated.staged[0].partition)
    return store.publish(validated.table, validated.staged, validated.reports, run, suite=suite)
