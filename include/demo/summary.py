"""`var/demo/summary.json`: what the story measured. The shape is documented in README.md and does not change
without a new `schema` number."""

from __future__ import annotations

from typing import Any

from include.demo.plan import Plan
from include.demo.promises import Verdict
from include.demo.record import Record, Training
from include.demo.story import USE_CASE
from pipelines import partitions

SCHEMA = 1


def summarize(
    plan: Plan,
    record: Record,
    verdicts: list[Verdict],
    *,
    seconds: dict[str, float],
    warm: bool,
    code_version: str,
) -> dict[str, Any]:
    """The whole summary, JSON-ready.

    Args:
        seconds: of the story as a whole: {"servers", "story", "total"}.
    """
    return {
        "schema": SCHEMA,
        "plan": plan.name,
        "use_case": USE_CASE,
        "code_version": code_version,
        "ok": all(verdict.held for verdict in verdicts),
        "promises": [{"promise": each.promise, "held": each.held, "evidence": each.evidence} for each in verdicts],
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "warm_workers": warm,
        "acts": [{"act": title, "seconds": round(value, 1)} for title, value in record.played.acts],
        "history": _history(plan, record),
        "nights": _nights(plan, record),
        "quarantined": _quarantined(record),
        "champions": [_promotion(entry, record) for entry in record.promotions],
        "trainings": [_training(each) for each in record.trainings],
        "drift": _drift(record),
        "decisions": [each.model_dump(mode="json") for each in record.decisions],
        "tasks": [_task(task, record) for task in record.tasks],
    }


def _history(plan: Plan, record: Record) -> dict[str, Any]:
    low, high = plan.history
    days = partitions.span(low, high, record.runtime.spec.granularity)
    run = record.played.history
    return {
        "from": low,
        "to": high,
        "partitions": sum(day in record.rows for day in days),
        "rows": sum(record.rows.get(day, 0) for day in days),
        "run_id": run.run_id if run else None,
        "seconds": run.seconds if run else None,
    }


def _nights(plan: Plan, record: Record) -> list[dict[str, Any]]:
    seconds: dict[str, float] = {}
    for night in (*record.played.nights, record.played.healed):
        if night and night.score and night.score.ended:
            seconds[night.partition] = (night.score.ended - night.ingest.queued).total_seconds()
    shared: dict[str, float] = {}
    for (low, high), ingest, score in record.played.ranges:
        days = partitions.span(low, high, record.runtime.spec.granularity)
        shared |= dict.fromkeys(days, ((ingest.seconds or 0) + (score.seconds or 0)) / len(days))
    found = []
    for low, high in sorted(plan.scored):
        for key in partitions.span(low, high, record.runtime.spec.granularity):
            prediction = record.predictions.get(key)
            alone = key in seconds
            taken = seconds.get(key, shared.get(key))
            found.append(
                {
                    "partition": key,
                    "rows_in": record.rows.get(key),
                    "rows_scored": record.scores.get(key),
                    "model_version": prediction.model_version if prediction else None,
                    "snapshot": next((ref.id for ref in prediction.inputs if ref.table == "rows"), None)
                    if prediction
                    else None,
                    "state": _state(plan, record, key),
                    "run": "night" if alone else "range",
                    "seconds": round(taken, 3) if taken is not None else None,
                }
            )
    return found


def _state(plan: Plan, record: Record, key: str) -> str:
    if key in record.scores:
        return "healed" if key == plan.bad else "published"
    return "quarantined" if any(entry.partition == key for entry in record.quarantined) else "missing"


def _quarantined(record: Record) -> list[dict[str, Any]]:
    return [
        {
            "table": entry.table,
            "partition": entry.partition,
            "healed": entry.table == "rows" and entry.partition in record.rows,
            "report": entry.report.html,
            "failed": [check.model_dump(mode="json") for check in entry.report.failed],
        }
        for entry in record.quarantined
    ]


def _scorecards(training: Training) -> dict[str, Any]:
    if training.trained is None:
        return {}
    return {
        card.model: {"rows": card.rows, "rows_per_second": card.rows_per_second, "bytes": card.bytes, **card.metrics}
        for card in training.trained.scorecards
    }


def _promotion(entry: Any, record: Record) -> dict[str, Any]:
    training = next((each for each in record.trainings if each.run.run_id == entry.run.run_id), None)
    return {
        "epoch": entry.epoch,
        "kind": entry.kind,
        "version": entry.version,
        "previous": entry.previous,
        "as_of": entry.as_of,
        "reason": entry.reason,
        "run_id": entry.run.run_id,
        "metrics": _scorecards(training) if training else {},
    }


def _training(training: Training) -> dict[str, Any]:
    gates, evaluation, trained = training.gates, training.evaluation, training.trained
    return {
        "run_id": training.run.run_id,
        "as_of": trained.training_set.as_of if trained else None,
        "seconds": training.run.seconds,
        "outcome": None if gates is None else "promoted" if gates.passed else "refused",
        "reason": gates.reason if gates else None,
        "gates": [gate.model_dump(mode="json") for gate in gates.gates] if gates else [],
        "holdout": list(evaluation.holdout.partitions) if evaluation else None,
        "challenger": evaluation.challenger.metrics if evaluation else None,
        "champion": evaluation.champion.metrics if evaluation and evaluation.champion else None,
        "snapshots": [ref.id for ref in trained.training_set.snapshots] if trained else [],
        "metrics": _scorecards(training),
    }


def _drift(record: Record) -> list[dict[str, Any]]:
    """PSI per column per night; a night that two monitor runs saw is told by the first."""
    found: dict[str, dict[str, Any]] = {}
    for observations in record.observations:
        for each in observations.window:
            if each.state == "observed" and each.partition not in found:
                found[each.partition] = {
                    "partition": each.partition,
                    "model_version": observations.champion.version,
                    "score": each.score.psi if each.score else None,
                    "columns": {drift.column: drift.psi for drift in each.drift},
                    "labels": each.labels,
                    observations.metric: each.quality.value if each.quality else None,
                }
    return [found[key] for key in sorted(found)]


def _task(task: Any, record: Record) -> dict[str, Any]:
    partition = next((run.partition for run in record.runs if run.run_id == task.run_id), None)
    return {
        "dag_id": task.dag_id,
        "run_id": task.run_id,
        "partition": partition,
        "task_id": task.task_id,
        "state": task.state,
        "tries": task.tries,
        "seconds": task.total,
        "queue": task.queue,
        "import": task.imports,
        "work": task.work,
    }
