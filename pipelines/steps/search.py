"""Search: better settings of the teacher for one training set, each trial a run in MLflow below the search's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pipelines.errors import SpecError, TerminalError, explain
from pipelines.ports import ModelRegistry, OnTrial, Searcher
from pipelines.records import RunInfo, TrainingSet, Trial
from pipelines.spec import Teacher, UseCase

#: What of `training` says nothing about a trial: budgets, and everything that comes after the teacher.
_BESIDE_THE_POINT = {
    "trainer",
    "sagemaker",
    "student",
    "compression",
    "sensitive_layers",
    "calibration_rows",
    "probabilities",
    "processes",
    "checkpoint_minutes",
}
_BUDGET = {"enabled", "trials", "minutes", "parallel"}


def search(
    spec: UseCase,
    searcher: Searcher,
    registry: ModelRegistry,
    training_set: TrainingSet,
    run: RunInfo,
    tell: OnTrial = lambda _: None,
) -> TrainingSet:
    """Searches within the spec's budget, and hands on the training set with what was chosen.

    A repeat finds its own study and its own MLflow runs: what ended is not done again, and a larger budget goes on
    where the smaller one ended.

    Args:
        tell: also called with each trial when it begins and when it has ended, for whoever is watching.

    Raises:
        SpecError: nothing that is searched is part of the model.
        TrainingError: no trial could be completed.
    """
    if spec.training.model != "tabm":
        raise SpecError(
            explain(
                f"{spec.name}: training.search",
                f"training.model is {spec.training.model!r}, which has no teacher",
                allowed="a search with model: tabm",
                remedy="turn the search off",
            )
        )
    study = study_name(spec, training_set, run.code_version)
    run_id = registry.start_search(
        spec,
        study,
        {
            "overnight.training_set": training_set.digest,
            "overnight.as_of": training_set.as_of,
            "overnight.search": spec.training.search.model_dump_json(),
            "overnight.seed": str(spec.training.seed),
            "overnight.code_version": run.code_version,
            "overnight.dag_run": f"{run.dag_id}/{run.run_id}",
            "overnight.spec": spec.digest,
        },
    )

    def on_trial(trial: Trial) -> None:
        registry.log_trial(run_id, trial)
        tell(trial)

    try:
        result = searcher.search(spec, Path(training_set.folder), study, on_trial)
    except TerminalError:
        registry.end_search(run_id, None)
        raise
    result = result.model_copy(update={"run_id": run_id})
    registry.end_search(run_id, result)
    return training_set.model_copy(update={"searched": result})


def study_name(spec: UseCase, training_set: TrainingSet, code_version: str) -> str:
    """The same for every search in which a trial of the same settings comes to the same: by training set, space, seed,
    the parts of the spec that a trial reads, and code. Budgets are left out: a study may be given more.
    """
    training = spec.training.model_dump(mode="json", exclude=_BESIDE_THE_POINT)
    for name in _BUDGET:
        del training["search"][name]
    told = {
        "set": training_set.digest,
        "training": training,
        "label": spec.label.model_dump(mode="json"),
        "features": spec.features.model_dump(mode="json"),
        "metric": spec.gates.metric,
        "code": code_version,
    }
    return f"{spec.name}-{hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]}"


def chosen(spec: UseCase, training_set: TrainingSet) -> UseCase:
    """The spec whose teacher has the settings that a search on this training set chose; the same spec without one."""
    if training_set.searched is None:
        return spec
    teacher = Teacher.model_validate({**spec.training.teacher.model_dump(), **training_set.searched.parameters})
    return spec.model_copy(update={"training": spec.training.model_copy(update={"teacher": teacher})})


def searched_tags(training_set: TrainingSet) -> dict[str, str]:
    """What the MLflow run of a training says about the search before it."""
    found = training_set.searched
    if found is None:
        return {}
    return {
        "overnight.study": found.study,
        "overnight.search_run": found.run_id or "",
        "overnight.searched": json.dumps(found.parameters),
    }
