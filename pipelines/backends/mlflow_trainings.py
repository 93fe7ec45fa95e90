"""Every training that MLflow knows of a use case, read back with what was written on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.records import ModelRef, TrainingRun


def list_trainings(
    client: Any, use_case: str, mark: str, versions: Sequence[tuple[ModelRef, Mapping[str, str]]]
) -> list[TrainingRun]:
    """The trainings of an experiment, oldest first.

    Args:
        client: an MlflowClient.
        use_case: name of the experiment.
        mark: the tag that tells Overnight's trainings from other runs of the experiment.
        versions: every model version with its tags, oldest first: of two versions of one run the older one counts.
    """
    experiment = client.get_experiment_by_name(use_case)
    if experiment is None:
        return []
    made = {model.run_id: (model, tags) for model, tags in reversed(versions)}
    found = []
    for run in _runs(client, experiment.experiment_id):
        if mark not in run.data.tags:
            continue
        model, tags = made.get(run.info.run_id, (None, {}))
        found.append(
            TrainingRun(
                run_id=run.info.run_id,
                tags=_ours(run.data.tags),
                metrics=dict(sorted(run.data.metrics.items())),
                model=model,
                model_tags=_ours(tags),
            )
        )
    return found


def _runs(client: Any, experiment: str) -> list[Any]:
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], order_by=["attributes.start_time ASC"], page_token=token)
        found += page
        if not (token := page.token):
            return sorted(found, key=lambda run: (run.info.start_time, run.info.run_id))


def _ours(tags: Mapping[str, str]) -> dict[str, str]:
    """Without the tags that MLflow itself writes."""
    return {name: value for name, value in sorted(tags.items()) if name.startswith("overnight.")}
