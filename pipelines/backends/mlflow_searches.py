"""Searches in MLflow: one run a search, and one run a trial, nested in it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from pipelines.records import SearchResult, Trial

_STUDY, _TRIAL = "overnight.search_study", "overnight.trial"
_PARENT = "mlflow.parentRunId"
#: MLflow's states of a run, by a trial's.
_STATES = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED"}
_MAX_TAG = 5000


def start(client: Any, experiment: str, study: str, tags: Mapping[str, str]) -> str:
    """The run of a study, made when there is none."""
    name = f"search {study.rpartition('-')[2]}"
    found = _run(client, experiment, {_STUDY: study}, name, tags)
    if found.info.status != "RUNNING":
        client.update_run(found.info.run_id, status="RUNNING")  # it may have been given a larger budget
    return str(found.info.run_id)


def log_trial(client: Any, search: str, trial: Trial) -> None:
    """Keeps a trial. A nested run that has ended is left as it is."""
    from mlflow.entities import Metric, Param, RunTag

    experiment = client.get_run(search).info.experiment_id
    run = _run(client, experiment, {_PARENT: search, _TRIAL: str(trial.index)}, f"trial {trial.index}", {})
    run_id = run.info.run_id
    if run.info.status != "RUNNING":
        return
    if not run.data.params:
        client.log_batch(run_id, params=[Param(name, str(value)) for name, value in trial.parameters.items()])
    if trial.state == "running":
        return
    now = time.time_ns() // 1_000_000
    metrics = [Metric("teacher_validation", value, now, epoch) for epoch, value in enumerate(trial.curve, 1)]
    metrics += [Metric("seconds", trial.seconds, now, 0)]
    if trial.value is not None:
        metrics.append(Metric("best_validation", trial.value, now, 0))
    tags = [RunTag("overnight.trial_state", trial.state)]
    if trial.error is not None:
        tags.append(RunTag("overnight.error", trial.error[:_MAX_TAG]))
    client.log_batch(run_id, metrics=metrics, tags=tags)
    client.set_terminated(run_id, _STATES[trial.state])


def end(client: Any, search: str, result: SearchResult | None) -> None:
    """Ends the run of a search, with what was chosen."""
    if result is None:
        client.set_terminated(search, "FAILED")
        return
    from mlflow.entities import Metric, RunTag

    now = time.time_ns() // 1_000_000
    figures = {
        "best_validation": result.value,
        "trials_complete": result.complete,
        "trials_pruned": result.pruned,
        "trials_failed": result.failed,
        "seconds": result.seconds,
    }
    metrics = [Metric(name, float(value), now, 0) for name, value in figures.items()]
    client.log_batch(search, metrics=metrics, tags=[RunTag("overnight.search_result", result.model_dump_json())])
    client.set_terminated(search, "FINISHED")


def _run(client: Any, experiment: str, key: Mapping[str, str], name: str, tags: Mapping[str, str]) -> Any:
    """The run that has these tags, made when there is none; of two that were made at once the older one counts."""
    words = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in key.items())

    def found() -> list[Any]:
        runs = client.search_runs([experiment], words)
        return sorted(runs, key=lambda run: (run.info.start_time, run.info.run_id))

    runs = found()
    if not runs:
        made = client.create_run(experiment, tags={**tags, **key}, run_name=name)
        runs = found() or [made]
    return runs[0]
