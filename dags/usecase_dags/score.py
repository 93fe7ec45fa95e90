"""The scoring DAG: the champion scores newly published partitions; predictions appear once or not at all."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, Param, PartitionedAssetTimetable, TaskGroup, get_current_context
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from pipelines.errors import explain
from pipelines.records import AuditedScores, Delivered, Piece, Prediction, Scored, ScorePlan
from pipelines.spec import UseCase
from usecase_dags.context import asked_of, open_runtime, param
from usecase_dags.shared import dag_options, deadline, late_doc, partitions_params, predictions_asset, rows_asset
from usecase_dags.steps import MODEL, SNAPSHOT, STEP, Mapped, made, on_queue, snapshot_url, step, training_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pipelines.records import Shard
    from pipelines.runtime import Runtime

_DOC = """\
Scores newly published partitions with the champion, one row for each input row, once.

**What it does.** Starts by itself when `{name}_ingest` announces a partition. `score` resolves what is to be scored
(model, snapshots, partitions) and runs the champion's int8 ONNX over it; of more than {rows:,} rows it only makes the
plan, and `shard` scores them in pieces, {parallel} at a time, on as many workers as there are. `audit` checks the
scores (as many rows as the input, the same keys, finite, in range, not constant), `publish` makes them visible in one
atomic commit a model version. Scoring the same partition again changes nothing, unless its input changed or the form
says *score anew*.{delivers}

**Nights that have passed.** A range in the form is one run: it takes what is published, in any order, is marked as a
backfill in every commit, starts no other run and raises no alert. With the model `as-of` each night is scored by the
version that was champion then; nights before the first champion stay without scores, as the log of `publish` says.

**When it fails.** *Skipped* means that there is no champion yet: run `{name}_train`; a pink `shard` alone is the
normal case: there was little enough for `score` itself. A red `shard`: clear it, only this piece is scored again. A red
`audit` means that the scores look wrong and are in quarantine; what was published before stays: look at the input
partition and at the champion's *MLflow run*, and run `{name}_rollback` if the model is at fault. A red `score` that
says *not published*: ingest the partition first. After a missed asset event, trigger this DAG with the partition;
nothing is scored twice.
A warning in the log of `score`, and its XCom `aliases`, say that somebody moved an alias in MLflow by hand: scoring
goes by the promotion log and not by aliases; put them back with `overnight aliases {name} --restore`, or keep the
move, for a reason, with `--adopt`.{late}
"""

_DELIVERS = """ `deliver` then hands them to {names}, each on its own: clear a red one when its other
side is well again; what arrived is not sent twice."""


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


def _end_lateness(runtime: Runtime, scores: Sequence[Prediction]) -> None:
    """Says in the book of alerts that late nights are here. What goes wrong here holds up no delivery."""
    log = logging.getLogger("task")
    try:
        over = runtime.end_lateness(scores)
        for alert in over:
            log.info("the scores of %s, late since %s, are here", alert.partition, alert.since)
        if over:  # seldom: an ordinary night imports nothing for it
            import overnight_channels

            overnight_channels.quietly(runtime.spec, runtime.alerts, over)
    except OSError as error:
        log.warning("%s: its book of alerts could not be written: %s", runtime.spec.name, error)


def _version(number: Any) -> str:
    return "no version" if number is None else f"version {number}"


def _label(shard: Shard) -> str:
    """What the grid calls a mapped task: `2013-09-01`, `2013-09-01..2013-09-07`, `2013-09-01 rows 2000000..3999999`."""
    first, last = shard.partitions[0], shard.partitions[-1]
    if shard.rows is not None:
        return f"{first} rows {shard.start}..{shard.start + shard.rows - 1}"
    return first if first == last else f"{first}..{last}"


def _handed_over(spec: UseCase, plans: Sequence[ScorePlan]) -> list[dict[str, Any]]:
    """The shards that tasks of their own score: none of a run of few rows, and none that Ray takes."""
    rows = sum(plan.rows_in[partition] for plan in plans for partition in plan.due)
    if spec.scoring.engine == "ray" or rows <= spec.scoring.shard_rows:
        return []
    return [
        {"plan": number, "shard": place, "label": _label(shard)}
        for number, plan in enumerate(plans)
        for place, shard in enumerate(plan.shards)
    ]


def _merged(
    runtime: Runtime, told: Sequence[dict[str, Any]], parts: Sequence[dict[str, Any]], pieces: Any
) -> list[Scored]:
    """What `score` scored itself, or what the mapped tasks did, merged and staged: one a plan."""
    if not parts:
        return [Scored.model_validate(one) for one in told]
    found: list[list[Piece]] = [[] for _ in told]
    for part, piece in zip(parts, pieces, strict=True):
        found[part["plan"]].append(Piece.model_validate(piece["record"]))
    plans = [ScorePlan.model_validate(one) for one in told]
    return [
        runtime.stage_pieces(plan, mine) if plan.due else runtime.score_plan(plan)
        for plan, mine in zip(plans, found, strict=True)
    ]


def _model_params() -> dict[str, Param]:
    """Fields for the model and for what is scored already."""
    return {
        "model": Param(
            "champion",
            type="string",
            pattern=r"^(champion|as-of|[1-9][0-9]{0,8})$",
            examples=["champion", "as-of"],
            title="Model",
            description="champion: the present one. as-of: for each night the model that was champion then. "
            "A number: this registered version.",
        ),
        "anew": Param(
            False,
            type="boolean",
            title="Score anew",
            description="Replace what another model scored from the same rows; a version given by its number does so "
            "in any case. Otherwise scores that people may have acted on stay as they are, and only nights without "
            "scores, or with restated rows, are scored.",
        ),
    }


def build(spec: UseCase) -> DAG:
    """`<use case>_score`."""
    predictions = predictions_asset(spec)

    queue = on_queue(spec.queues.score)

    @step(links=(MODEL,), **queue)
    def score() -> Mapped:
        from pipelines.steps.promotions import PROMOTIONS

        runtime = open_runtime(spec)
        model = param("model")
        if not model.isdigit() and runtime.store.head(PROMOTIONS) is None:  # asking the registry takes longer
            raise AirflowSkipException(f"there is no champion yet; run {spec.name}_train first")
        this = asked_of(spec)
        # A range takes what is there, so that one bad night does not hold up the others.
        chosen = runtime.published(this.partitions) if this.ranged else this.partitions
        if not chosen:
            raise AirflowFailException(explain(f"{spec.name}/rows", f"nothing of {this.label} is published"))
        plans = runtime.plan_scores(chosen, model, anew=param("anew"))
        over = _handed_over(spec, plans)
        scored = plans if over else tuple(runtime.score_plan(plan) for plan in plans)
        made(MODEL, training_url(runtime, plans[-1].model.run_id))
        if model == "champion" and not runtime.run.backfill:
            _notice_moved_aliases(runtime)
        return Mapped(record=scored, over=over)

    @step(max_active_tis_per_dagrun=spec.scoring.parallel, map_index_template="{{ label }}", **queue)
    def shard(part: dict[str, Any], planned: dict[str, Any]) -> Piece:
        get_current_context()["label"] = part["label"]  # type: ignore[typeddict-unknown-key]
        plan = ScorePlan.model_validate(planned["record"][part["plan"]])
        return open_runtime(spec).score_shard(plan, plan.shards[part["shard"]])

    # A skipped `shard` is the ordinary night; a skipped `score` has nothing to audit.
    @step(trigger_rule="none_failed_min_one_success")
    def audit(planned: dict[str, Any], parts: list[dict[str, Any]], pieces: Any) -> tuple[AuditedScores, ...]:
        runtime = open_runtime(spec)
        return tuple(runtime.audit_scores(one) for one in _merged(runtime, planned["record"], parts, pieces))

    @step(outlets=[predictions], links=(SNAPSHOT,))
    def publish(audited: dict[str, Any]) -> tuple[Prediction, ...]:
        runtime, this = open_runtime(spec), asked_of(spec)
        scores: list[Prediction] = []
        for one in audited["record"]:
            checked = AuditedScores.model_validate(one)
            scores += runtime.publish_scores(checked)
            runtime.forget_pieces(checked.scored)
        _end_lateness(runtime, scores)
        made(SNAPSHOT, snapshot_url(scores[-1].snapshot) if scores else None)
        event = get_current_context()["outlet_events"][predictions]
        event.extra = {
            "snapshot": scores[-1].snapshot.id if scores else None,
            "partition": this.label,
            "rows": sum(part.rows_scored for part in scores),
            "model_version": max((part.model_version for part in scores), default=None),
            "backfill": runtime.run.backfill,
        }
        if not this.ranged and get_current_context()["dag_run"].partition_key is None:
            event.add_partitions(this.label)  # named in the form: the event needs its key all the same
        scored = {part.partition for part in scores}
        absent = [partition for partition in this.partitions if partition not in scored]
        if early := runtime.published(absent):
            logging.getLogger("task").warning("no model was champion yet when these ran: %s", ", ".join(early))
        if absent := [partition for partition in absent if partition not in early]:
            raise AirflowFailException(
                explain(
                    f"{spec.name}/rows",
                    f"the others are scored; not published: {', '.join(absent[:5])}{', ...' * (len(absent) > 5)}",
                    remedy="mend and ingest those partitions; their scoring follows by itself",
                )
            )
        return tuple(scores)

    @step(map_index_template="{{ label }}")
    def deliver(name: str, published: dict[str, Any]) -> tuple[Delivered, ...]:
        get_current_context()["label"] = name  # type: ignore[typeddict-unknown-key]
        scores = tuple(Prediction.model_validate(one) for one in published["record"])
        return open_runtime(spec).deliver(scores, only=name)

    with (
        DAG(
            **dag_options(spec, "score", _doc(spec)),
            **deadline(spec),
            schedule=PartitionedAssetTimetable(assets=rows_asset(spec)),
            params=partitions_params(spec, "score") | _model_params(),
            max_active_runs=4,
        ) as dag,
        TaskGroup(group_id="predictions", tooltip="the champion's scores of the asked partitions"),
    ):
        planned = score()
        pieces = shard.partial(planned=planned[STEP]).expand(part=planned)
        published = publish(audit(planned[STEP], planned, pieces))
        if spec.delivery:
            deliver.partial(published=published).expand(name=[one.name for one in spec.delivery])
    return dag


def _doc(spec: UseCase) -> str:
    names = ", ".join(f"*{one.name}* ({one.sink})" for one in spec.delivery)
    return _DOC.format(
        name=spec.name,
        rows=spec.scoring.shard_rows,
        parallel=spec.scoring.parallel,
        delivers=_DELIVERS.format(names=names) if names else "",
        late=late_doc(spec),
    )
