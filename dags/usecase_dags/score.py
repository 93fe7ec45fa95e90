"""The scoring DAG: the champion scores newly published partitions; predictions appear once or not at all."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Param, PartitionedAssetTimetable, TaskGroup, get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from pipelines.errors import explain
from pipelines.records import AuditedScores, Prediction, Scored
from pipelines.spec import UseCase
from usecase_dags.context import asked_of, open_runtime, param
from usecase_dags.shared import dag_options, partitions_params, predictions_asset, rows_asset
from usecase_dags.steps import MODEL, SNAPSHOT, made, snapshot_url, step, training_url

if TYPE_CHECKING:
    from pipelines.runtime import Runtime

_DOC = """\
Scores newly published partitions with the champion, one row for each input row, once.

**What it does.** Starts by itself when `{name}_ingest` announces a partition. `score` runs the champion's int8 ONNX
over the partition and stages the scores, `audit` checks them (as many rows as the input, the same keys, finite, in
range, not constant), `publish` makes them visible in one atomic commit. Scoring the same partition again changes
nothing, unless its input changed or the form names a model version.

**When it fails.** *Skipped* means that there is no champion yet: run `{name}_train`. A red `audit` means that the
scores look wrong and are in quarantine; what was published before stays: look at the input partition and at the
champion's *MLflow run*, and run `{name}_rollback` if the model is at fault. A red `score` that says *not published*:
ingest the partition first. After a missed asset event, trigger this DAG with the partition; nothing is scored twice.
A warning in the log of `score`, and its XCom `aliases`, say that somebody moved an alias in MLflow by hand: scoring
goes by the promotion log and not by aliases; put them back with `overnight aliases {name} --restore`, or keep the
move, for a reason, with `--adopt`.
"""


def _notice_moved_aliases(runtime: Runtime) -> None:
    """Warns of aliases that are elsewhere than the promotion log says. What goes wrong here holds up no night."""
    log, name = logging.getLogger("task"), runtime.spec.name
    try:
        state = runtime.alias_state()
    except Exception as error:
        log.warning("%s: whether its aliases were moved by hand could not be seen: %s", name, error)
        return
    remedy = f"overnight aliases {name} --restore, or --adopt"
    moved = [
        {"alias": alias, "expected": state.expected[alias], "found": state.found.get(alias), "remedy": remedy}
        for alias in state.moved
    ]
    for move in moved:
        log.warning(
            "%s: the alias %s was moved in MLflow by hand: it is at %s, the promotion log says %s. Remedy: %s",
            *(name, move["alias"], _version(move["found"]), _version(move["expected"]), remedy),
        )
    if moved:
        get_current_context()["ti"].xcom_push(key="aliases", value=moved)


def _version(number: Any) -> str:
    return "no version" if number is None else f"version {number}"


def build(spec: UseCase) -> DAG:
    """`<use case>_score`."""
    predictions = predictions_asset(spec)

    @step(links=(MODEL,))
    def score() -> Scored:
        from pipelines.steps.promotions import PROMOTIONS

        runtime = open_runtime(spec)
        version = param("version")
        if version is None and runtime.store.head(PROMOTIONS) is None:  # scoring asks the registry, which takes longer
            raise AirflowSkipException(f"there is no champion yet; run {spec.name}_train first")
        this = asked_of(spec)
        # A range takes what is there, so that one bad night does not hold up the others.
        chosen = runtime.published(this.partitions) if this.ranged else this.partitions
        if not chosen:
            raise AirflowFailException(explain(f"{spec.name}/rows", f"nothing of {this.label} is published"))
        scored = runtime.score(chosen, version)
        made(MODEL, training_url(runtime, scored.model.run_id))
        if version is None and not this.ranged and not runtime.run.backfill:
            _notice_moved_aliases(runtime)
        return scored

    @step
    def audit(staged: dict[str, Any]) -> AuditedScores:
        return open_runtime(spec).audit_scores(Scored.model_validate(staged["record"]))

    @step(outlets=[predictions], links=(SNAPSHOT,))
    def publish(audited: dict[str, Any]) -> tuple[Prediction, ...]:
        scores = open_runtime(spec).publish_scores(AuditedScores.model_validate(audited["record"]))
        made(SNAPSHOT, snapshot_url(scores[-1].snapshot) if scores else None)
        this = asked_of(spec)
        get_current_context()["outlet_events"][predictions].extra = {
            "snapshot": scores[-1].snapshot.id if scores else None,
            "partition": this.label,
            "rows": sum(part.rows_scored for part in scores),
            "model_version": max((part.model_version for part in scores), default=None),
        }
        scored = {part.partition for part in scores}
        if absent := [partition for partition in this.partitions if partition not in scored]:
            raise AirflowFailException(
                explain(
                    f"{spec.name}/rows",
                    f"the others are scored; not published: {', '.join(absent[:5])}{', ...' * (len(absent) > 5)}",
                    remedy="mend and ingest those partitions; their scoring follows by itself",
                )
            )
        return scores

    with (
        DAG(
            **dag_options(spec, "score", _DOC.format(name=spec.name)),
            schedule=PartitionedAssetTimetable(assets=rows_asset(spec)),
            params=partitions_params(spec, "score")
            | {
                "version": Param(
                    None,
                    type=["null", "integer"],
                    minimum=1,
                    title="Model version",
                    description="Score with this registered version, replacing what another one scored. "
                    "Empty: the champion, and what is scored already stays.",
                )
            },
            max_active_runs=4,
        ) as dag,
        TaskGroup(group_id="predictions", tooltip="the champion's scores of the asked partitions"),
    ):
        publish(audit(score()))
    return dag
