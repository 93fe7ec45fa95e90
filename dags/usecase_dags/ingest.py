"""The ingest DAG: each table of a partition is landed, validated and published; then the night is announced."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, TaskGroup, chain, get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from pipelines.errors import explain
from pipelines.records import Landing, Publication, Quarantined, Validated
from pipelines.spec import UseCase
from usecase_dags.context import asked_of, open_runtime
from usecase_dags.shared import dag_options, deadline, last_tick, late_doc, partitions_params, rows_asset, timetable
from usecase_dags.steps import SNAPSHOT, VALIDATION, made, report_url, snapshot_url, step

_DOC = """\
Takes the partition that has just ended: lands its files, validates them, publishes them as snapshots.

**What it does.** Each table goes its own way: `land` reads the files strictly and stages them, `validate` judges them
by the table's expectations (Great Expectations) and puts what fails into quarantine with its report, `publish` makes
the rest visible in one atomic commit. When everything that scoring needs is published, `announce` emits the asset
event that starts `{name}_score` for this partition. A range, given in the form, is one run, and starts no scoring
runs: run `{name}_score` with the same range.

**When it fails.** A red `validate`, or a red `publish` in a range, means quarantine: open the task's *Validation
report*, have the source send the file again, and trigger this DAG with the same partition. Nothing of a bad partition
is visible, and other partitions are not held up. A red `land` that names a missing file: the source is late; clear
the task when the file is there. Anything else is retried twice before it turns red. Running a partition again is
always safe: the same bytes change nothing.{late}
"""


def _names(aside: tuple[Quarantined, ...]) -> str:
    shown = [f"{bad.partition} ({', '.join(sorted({check.name for check in bad.report.failed}))})" for bad in aside[:5]]
    return "; ".join(shown) + (f" and {len(aside) - 5} more" if len(aside) > 5 else "")


def _late(spec: UseCase, validated: Validated, asked_keys: list[str]) -> list[str]:
    """Missing keys that should be there: a lagged table's first keys may lie before its first file."""
    early = set(asked_keys[: spec.tables[validated.table].lag])
    return [key for key in validated.missing if key not in early]


def _table(spec: UseCase, table: str) -> Any:
    """land -> validate -> publish of one table; returns publish."""

    @step
    def land() -> Landing:
        runtime = open_runtime(spec)
        partitions = asked_of(spec).partitions
        if not runtime.keys(table, partitions):
            raise AirflowSkipException(f"nothing of {table} to take for {partitions[0]}..{partitions[-1]}")
        return runtime.land(table, partitions)

    @step(links=(VALIDATION,))
    def validate(landing: dict[str, Any]) -> Validated:
        runtime = open_runtime(spec)
        validated = runtime.validate(Landing.model_validate(landing["record"]))
        reports = [bad.report for bad in validated.quarantined] or list(validated.reports)
        if reports:
            made(VALIDATION, report_url(reports[-1].html, runtime.settings.reports))
        if validated.quarantined and not validated.staged:
            raise AirflowFailException(
                explain(
                    f"{spec.name}/{table}",
                    f"nothing passed; in quarantine: {_names(validated.quarantined)}",
                    remedy="open the validation report, have the file mended, then run this partition again",
                )
            )
        return validated

    @step(links=(SNAPSHOT,))
    def publish(checked: dict[str, Any]) -> Publication | None:
        runtime = open_runtime(spec)
        validated = Validated.model_validate(checked["record"])
        publication = runtime.publish(validated)
        if publication:
            made(SNAPSHOT, snapshot_url(publication.snapshot))
        late = _late(spec, validated, runtime.keys(table, asked_of(spec).partitions))
        if validated.quarantined or late:
            problems = [f"in quarantine: {_names(validated.quarantined)}"] if validated.quarantined else []
            problems += [f"no file for: {', '.join(late[:5])}{', ...' if len(late) > 5 else ''}"] if late else []
            raise AirflowFailException(
                explain(
                    f"{spec.name}/{table}",
                    f"the good partitions are published; {'; '.join(problems)}",
                    remedy="have the files mended or sent, then run those partitions again",
                )
            )
        return publication

    with TaskGroup(group_id=table, tooltip=f"{table}: {spec.tables[table].path}"):
        return publish(validate(land()))


def build(spec: UseCase) -> DAG:
    """`<use case>_ingest`."""
    rows = rows_asset(spec)
    needed = {"rows", *spec.context}

    @step(outlets=[rows], links=(SNAPSHOT,), trigger_rule="none_failed")
    def announce(published: dict[str, Any] | None) -> dict[str, Any]:
        this = asked_of(spec)
        if this.ranged:
            raise AirflowSkipException(f"a range starts no scoring runs; run {spec.name}_score for {this.label}")
        if not published or not published["record"]:
            raise AirflowSkipException(f"no rows of {this.label} were published")
        publication = Publication.model_validate(published["record"])
        made(SNAPSHOT, snapshot_url(publication.snapshot))
        extra = {
            "snapshot": publication.snapshot.id,
            "partition": this.label,
            "rows": sum(part.rows for part in publication.partitions),
        }
        event = get_current_context()["outlet_events"][rows]
        event.extra = extra
        if get_current_context()["dag_run"].partition_key is None:
            event.add_partitions(this.label)  # named in the form: the event needs its key all the same
        return extra

    with DAG(
        **dag_options(spec, "ingest", _DOC.format(name=spec.name, late=late_doc(spec))),
        **deadline(spec),
        schedule=timetable(spec, spec.schedule),
        end_date=last_tick(spec),
        params=partitions_params(spec, "ingest"),
        max_active_runs=4,
    ) as dag:
        published = {table: _table(spec, table) for table in spec.tables}
        last = announce(published["rows"])
        chain([published[table] for table in spec.tables if table in needed], last)
    return dag
