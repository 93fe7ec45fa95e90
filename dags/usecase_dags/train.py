"""The training DAG: a pinned training set, a challenger, the gates, and perhaps a new champion."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Param, TaskGroup, get_current_context
from airflow.sdk.exceptions import AirflowSkipException

from pipelines import partitions
from pipelines.errors import GateRefused, SpecError, TransientError, explain
from pipelines.records import Approval, Evaluation, GateReport, ModelRef, Promotion, TrainedModel, TrainingSet
from pipelines.spec import UseCase
from usecase_dags.comparison import hours
from usecase_dags.context import open_runtime, param
from usecase_dags.remote import train_remotely
from usecase_dags.shared import champion_asset, dag_options, partition_param, reason_param, say_entry
from usecase_dags.steps import COMPARISON, MODEL, SNAPSHOT, made, on_queue, review_url, snapshot_url, step, training_url

if TYPE_CHECKING:
    from pipelines.runtime import Runtime

_DOC = """\
Trains a challenger and makes it the champion if it passes every gate.

**What it does.** `build_training_set` pins snapshots and splits them by time: train, validation, holdout. `search`
does nothing unless the form (or the spec) asks for it: then it tries settings of the teacher, each trial a run in
MLflow below the search's, and hands the best on; cleared or killed it goes on with the trials that are left. `train`
trains the teacher (TabM), distils it to a small student and quantizes that to int8 ONNX. `evaluate` compares
challenger and champion on the same holdout, beside a constant and LightGBM; `gate` applies the spec's gates. After a
pass{asked}, `register` makes a model version and `promote` makes it the champion by compare-and-set.

**When it fails.** Pink `register` and `promote` are no failure: {refused}, the champion stays, and `gate` says
why (its log, its XCom, its *Comparison*, and the tags of the *MLflow run*). A red `build_training_set`: there is not
enough audited, matured data; ingest it. A red `search` or `train`: the log names what could not be learned. A red
`promote` says that another promotion came first: {again}, so that the challenger meets the new champion. The champion
changes in `promote` alone; `{name}_rollback` takes a promotion back.
{more}"""

_MANUAL = """
**Who decides.** When the gates have passed, `approve` asks a person: its tab *Required Action* (and the list of them
in Airflow's menu) shows the comparison with the champion, and two buttons. *Reject*, or no answer within {hours}: the
champion stays, and the answer is a tag of the *MLflow run*. *Approve*: the promotion log names the person. While it
waits, no worker is held, and other runs of this DAG wait for it. To ask again about the same comparison, clear
`approve`; about another one, trigger this DAG again with the same form, which trains nothing twice. Marking `approve`
as successful is no answer: `register` fails.
"""

_REMOTELY = """
**On SageMaker.** `train` starts a training job, waits for it in the triggerer, and brings the artifact back. A retry
finds the job again. Marking the task failed or clearing it while it waits stops the job, which writes a checkpoint
first; run again, the next attempt goes on from there. The *Training job* link opens it in AWS.
"""


def build(spec: UseCase) -> DAG:
    """`<use case>_train`."""
    champion = champion_asset(spec)
    remote = spec.training.trainer == "sagemaker"

    def as_of() -> str:
        asked = param("as_of")
        if not asked:
            raise SpecError(
                explain(f"{spec.name}_train: as_of", "it is empty", remedy="name the newest partition that may be used")
            )
        partitions.start(asked, spec.granularity)
        return str(asked)

    def since() -> str | None:
        asked = param("since")
        if asked:
            partitions.start(asked, spec.granularity)
        return str(asked) if asked else None

    def approval(approved: dict[str, Any] | None) -> Approval | None:
        """What the person said; None where nobody is asked. A task that was marked by hand has said nothing."""
        if spec.promotion == "automatic":
            return None
        if not approved:
            raise GateRefused(
                explain(f"{spec.name}: promotion", "it is manual, and nobody approved it", remedy="clear `approve`")
            )
        return Approval.model_validate(approved["record"])

    @step(links=(SNAPSHOT,))
    def build_training_set() -> TrainingSet:
        training_set = open_runtime(spec).build_training_set(as_of(), since())
        rows = next((ref for ref in training_set.snapshots if ref.table == "rows"), None)
        made(SNAPSHOT, snapshot_url(rows) if rows else None)
        return training_set

    @step(links=(MODEL,), **on_queue(spec.queues.train))
    def search(built: dict[str, Any]) -> TrainingSet | dict[str, Any]:
        if not param("search"):
            return built["record"]  # nothing is imported for nothing
        runtime = open_runtime(spec)
        found = runtime.search(TrainingSet.model_validate(built["record"]))
        made(MODEL, training_url(runtime, found.searched.run_id) if found.searched and found.searched.run_id else None)
        return found

    @step(links=(MODEL,), **on_queue(spec.queues.train))
    def train(built: dict[str, Any]) -> TrainedModel:
        from pipelines.training.progress import line

        runtime = open_runtime(spec)
        trained = runtime.train(
            TrainingSet.model_validate(built["record"]),
            lambda values: logging.getLogger("task").info("%s", line(values)),
        )
        made(MODEL, training_url(runtime, trained.run_id))
        return trained

    @step
    def evaluate(trained: dict[str, Any]) -> Evaluation:
        return open_runtime(spec).evaluate(TrainedModel.model_validate(trained["record"]))

    @step(links=(COMPARISON, MODEL))
    def gate(trained: dict[str, Any], evaluated: dict[str, Any]) -> GateReport:
        runtime = open_runtime(spec)
        model = TrainedModel.model_validate(trained["record"])
        evaluation = Evaluation.model_validate(evaluated["record"])
        report = runtime.gate(model, evaluation)
        _say(report)
        _review(runtime, model, evaluation, report)
        made(COMPARISON, review_url(runtime, model.run_id, "comparison"))
        made(MODEL, training_url(runtime, model.run_id))
        return report

    @step(links=(MODEL,))
    def register(
        trained: dict[str, Any],
        evaluated: dict[str, Any],
        gated: dict[str, Any],
        approved: dict[str, Any] | None = None,
    ) -> ModelRef:
        report = GateReport.model_validate(gated["record"])
        if not report.passed:
            raise AirflowSkipException(f"a gate refused; the champion stays: {report.reason}")
        approval(approved)
        runtime = open_runtime(spec)
        challenger, evaluation = (
            TrainedModel.model_validate(trained["record"]),
            Evaluation.model_validate(evaluated["record"]),
        )
        model = runtime.register(challenger, evaluation, report)
        _review(runtime, challenger, evaluation, report)  # what is written already becomes the version's description
        made(MODEL, training_url(runtime, model.run_id))
        return model

    @step(outlets=[champion], links=(MODEL,))
    def promote(
        registered: dict[str, Any],
        evaluated: dict[str, Any],
        gated: dict[str, Any],
        approved: dict[str, Any] | None = None,
    ) -> Promotion:
        runtime = open_runtime(spec)
        model = ModelRef.model_validate(registered["record"])
        promotion = runtime.promote(
            model,
            Evaluation.model_validate(evaluated["record"]),
            GateReport.model_validate(gated["record"]),
            reason=param("reason"),
            as_of=as_of(),
            approval=approval(approved),
        )
        say_entry(spec, promotion)
        made(MODEL, training_url(runtime, model.run_id))
        get_current_context()["outlet_events"][champion].extra = {
            "model_version": promotion.version,
            "previous": promotion.previous,
            "epoch": promotion.epoch,
            "partition": promotion.as_of,
        }
        return promotion

    with DAG(
        **dag_options(spec, "train", _doc(spec)),
        schedule=None,
        params={
            "as_of": partition_param(spec, "As of", "The newest partition that may be used (UTC). Required."),
            "since": partition_param(spec, "Since", "The oldest partition that may be used (UTC). Empty: all of them."),
            "reason": reason_param("asked for by hand", "Why a new model is wanted; kept in the promotion log."),
            "search": Param(
                spec.training.search.enabled,
                type="boolean",
                title="Search",
                description="Whether settings of the teacher are searched for first, within the budget of "
                "`training.search`: several trainings instead of one.",
            ),
            "decision": Param(
                None,
                type=["null", "string"],
                title="Decision",
                description="Filled in by the monitor: the decision that asked for this run.",
            ),
        },
        max_active_runs=1,
    ) as dag:
        with TaskGroup(group_id="challenger", tooltip="search, train, distil, quantize and measure"):
            found = search(build_training_set())
            trained = train_remotely(spec, found) if remote else train(found)
            evaluated = evaluate(trained)
        with TaskGroup(group_id="promotion", tooltip="gates, a person where one is asked, then compare-and-set"):
            gated = gate(trained, evaluated)
            if spec.promotion == "manual":
                from usecase_dags.approval import ask  # a spec that asks nobody does not load it

                approved = ask(spec, trained, evaluated, gated)
                promote(register(trained, evaluated, gated, approved), evaluated, gated, approved)
            else:
                promote(register(trained, evaluated, gated), evaluated, gated)
    return dag


def _say(report: GateReport) -> None:
    """A line a gate, refusals as warnings, then the verdict."""
    log = logging.getLogger("task")
    for gate in report.gates:
        say = log.info if gate.passed else log.warning
        say("%s %s: %s", "passed " if gate.passed else "REFUSED", gate.name, gate.reason)
    refused = [gate.name for gate in report.gates if not gate.passed]
    if refused:
        log.warning("the champion stays: refused by %s", ", ".join(refused))
    else:
        log.info("passed every gate")


def _review(runtime: Runtime, model: TrainedModel, evaluation: Evaluation, report: GateReport) -> None:
    """Writes the comparison and the model card. A page that cannot be made refuses no model; a retry may help some."""
    try:
        runtime.review(model, evaluation, report)
    except TransientError:
        raise
    except Exception:
        logging.getLogger("task").warning("the comparison and the model card could not be made", exc_info=True)


def _doc(spec: UseCase) -> str:
    manual = spec.promotion == "manual"
    more = _MANUAL.format(hours=hours(spec.approval_hours)) if manual else ""
    return _DOC.format(
        name=spec.name,
        asked=" and a person's yes" if manual else "",
        refused="a gate or a person refused" if manual else "a gate refused",
        again="trigger this DAG again with the same form" if manual else "clear `evaluate`",
        more=more + (_REMOTELY if spec.training.trainer == "sagemaker" else ""),
    )
