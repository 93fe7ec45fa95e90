"""The monitoring DAG: drift and decay against the champion's reference, and the decision to retrain."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, TaskGroup
from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException

from pipelines.records import Alert, Observations, RetrainDecision
from pipelines.spec import UseCase
from usecase_dags.context import asked_of, open_runtime, param
from usecase_dags.shared import dag_options, last_tick, partition_param, timetable
from usecase_dags.steps import DRIFT, MODEL, made, report_url, step, training_url

_DOC = """\
Watches for drift and decay, and decides whether the champion must be trained again.

**What it does.** `observe` looks back over a window of partitions: exact PSI of every feature and of the scores
against the reference that was frozen with the champion, and the model's quality on labels that have matured.
`report` writes the Evidently report that people read (button *Drift report*). `decide` applies the spec's retraining
policy and stores the decision with its reasons, yes or no. A yes makes `retrain` start `{name}_train` under a run id
derived from the decision, so that a repeat starts nothing. `tell` writes what began and what is over into
`alerts/{name}.jsonl`, an incident once, and tells the spec's channels{channels}. A backfill run never says yes and
tells nothing.

**When it fails.** *Skipped* means that there is no champion to watch yet. A pink `retrain` is the normal case: the
decision was no, or this decision started its training already. A red `tell`: a channel did not answer; clear it,
what was sent is not sent twice. A failure here changes neither the champion nor any
prediction: clear the failed task.

**All nights side by side.** `DO_NOT_TRACK=1 evidently ui --workspace var/reports/evidently` opens what `report` wrote
in Evidently's own UI; with another OVERNIGHT_HOME, its folder stands in the place of `var`.
"""


def _channels(spec: UseCase) -> str:
    return f" ({', '.join(each.name for each in spec.alerts)})" if spec.alerts else ", of which it has none"


def build(spec: UseCase) -> DAG:
    """`<use case>_monitor`."""

    @step(links=(MODEL,))
    def observe() -> Observations:
        runtime = open_runtime(spec)
        if runtime.champion() is None:
            raise AirflowSkipException(f"there is no champion yet; run {spec.name}_train first")
        this = asked_of(spec)
        observations = runtime.observe(this.partitions[-1], param("window"))
        made(MODEL, training_url(runtime, observations.champion.run_id))
        return observations

    @step(links=(DRIFT,))
    def report(observed: dict[str, Any]) -> str:
        runtime = open_runtime(spec)
        html = str(runtime.drift_report(Observations.model_validate(observed["record"])))
        made(DRIFT, report_url(html, runtime.settings.reports))
        return html

    @step
    def decide(observed: dict[str, Any]) -> RetrainDecision:
        return open_runtime(spec).decide(Observations.model_validate(observed["record"]))

    @step
    def tell(observed: dict[str, Any], decided: dict[str, Any]) -> tuple[Alert, ...]:
        import overnight_channels

        runtime = open_runtime(spec)
        told = runtime.alert(
            Observations.model_validate(observed["record"]), RetrainDecision.model_validate(decided["record"])
        )
        overnight_channels.tell(spec, runtime.alerts)  # what failed before as well
        return told

    @step
    def retrain(decided: dict[str, Any]) -> None:
        decision = RetrainDecision.model_validate(decided["record"])
        reason = "; ".join(decision.reasons)
        if not decision.retrain:
            asked = "a person has to look: " if decision.escalate else ""
            raise AirflowSkipException(f"no retraining: {asked}{reason}")
        # What TriggerDagRunOperator raises; importing that operator costs every parse more than a second.
        raise DagRunTriggerException(
            trigger_dag_id=f"{spec.name}_train",
            dag_run_id=decision.id,
            conf={
                "as_of": decision.as_of,
                "since": decision.since,
                "reason": "; ".join(one.told for one in decision.signals if one.level == "alarm")[:500],
                "decision": decision.id,
            },
            reset_dag_run=False,
            skip_when_already_exists=True,
            wait_for_completion=False,
            allowed_states=[],
            failed_states=[],
            poke_interval=60,
            deferrable=False,
        )

    with DAG(
        **dag_options(spec, "monitor", _DOC.format(name=spec.name, channels=_channels(spec))),
        schedule=timetable(spec, spec.monitor_schedule),
        end_date=last_tick(spec),
        params={
            "partition": partition_param(spec, "As of", "The newest partition to look at (UTC)."),
            "window": Param(
                None,
                type=["null", "integer"],
                minimum=1,
                maximum=400,
                title="Window",
                description=f"Partitions to look back on. Empty: the spec's {spec.drift.window}.",
            ),
        },
        max_active_runs=1,
    ) as dag:
        with TaskGroup(group_id="drift", tooltip="drift and decay over the window"):
            observed = observe()
            report(observed)
        decided = decide(observed)
        tell(observed, decided)
        retrain(decided)
    return dag
