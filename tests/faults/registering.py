"""One training registered as its DAG does it, here or in a process that dies on the way, and what is then there."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path
from typing import Any

from pipelines.backends.mlflow_names import MLFLOW_SIGNATURE, SIGNATURE
from pipelines.backends.mlflow_registry import MlflowRegistry
from pipelines.records import ModelRef
from pipelines.spec import UseCase
from tests.registries import OF_REGISTRATION, OF_TRAINING

#: Imported once in the server that the processes fork from, and never used there.
_PRELOADED = ["tests.faults.registering", "mlflow", "mlflow.onnx", "mlflow.pyfunc", "model_signing", "onnx", "sqlite3"]


def register(registry: MlflowRegistry, spec: UseCase, artifact: Path) -> ModelRef:
    """From the opened run to the aliases."""
    run_id = registry.start_training(spec, OF_TRAINING)
    registry.log_artifact(run_id, artifact, {"auc": 0.7})
    model = registry.register(spec, run_id, artifact, OF_REGISTRATION)
    staged = "staging" in spec.stages
    registry.set_alias("challenger", model.version, staged=staged)
    model = registry.release(model)
    registry.set_alias("champion", model.version)
    return model


def register_elsewhere(uri: str, root: Path, spec: UseCase, artifact: Path, failpoint: str) -> int | None:
    """The same in another process; its exit code."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=_work, args=(uri, root, spec.model_dump(), artifact, failpoint))
    process.start()
    process.join(120)
    return process.exitcode


def _work(uri: str, root: Path, spec: dict[str, Any], artifact: Path, failpoint: str) -> None:
    from tests.registries import open_registry

    os.environ["OVERNIGHT_FAILPOINT"] = failpoint
    chosen = UseCase.model_validate(spec)
    register(open_registry(chosen.name, uri, root / "elsewhere", root / "home"), chosen, artifact)


def outcome(registry: MlflowRegistry) -> dict[str, Any]:
    """Everything of a use case in MLflow but what is random: ids, signatures, times."""
    client, name = registry._mlflow(), registry._name
    experiment = client.get_experiment_by_name(name).experiment_id
    found: dict[str, Any] = {}
    for staged in (False, True):
        entries = registry.registered(staged=staged)
        found[f"versions, staged: {staged}"] = [
            (entry.model.version, entry.model.digest, entry.aliases, sorted(entry.tags)) for entry in entries
        ]
    models = {model.model_id: model for model in client.search_logged_models([experiment])}
    tags = [entry.tags for staged in (False, True) for entry in registry.registered(staged=staged)]
    found["logged models"] = [str(model.status) for model in models.values()]
    found["named models"] = {each["overnight.model_id"] in models for each in tags}
    found["runs"] = []
    for run in client.search_runs([experiment]):
        outputs = run.outputs.model_outputs if run.outputs else []
        files = {entry.path for entry in client.list_artifacts(run.info.run_id, "signature")}
        named = {f"signature/{each[tag]}.json" for each in tags for tag in (SIGNATURE, MLFLOW_SIGNATURE)}
        artifacts = [entry.path for entry in client.list_artifacts(run.info.run_id, "artifact")]
        told = sorted(name for name in run.data.tags if name.startswith("overnight."))
        linked = [output.model_id in models for output in outputs]
        found["runs"].append((run.info.status, told, artifacts, len(files), files == named, linked))
    return found
