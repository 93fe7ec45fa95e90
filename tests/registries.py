"""Model registries for tests: MLflow with a signing key of the test's own, and everything that a version must have."""

from __future__ import annotations

from pathlib import Path

from pipelines.backends.mlflow_registry import MlflowRegistry
from pipelines.backends.model_signature import ModelSigning
from pipelines.settings import Settings

#: What a training writes on its run ...
OF_TRAINING = {
    "overnight.training_key": "a" * 64,
    "overnight.training_set": "5" * 64,
    "overnight.code_version": "0f" * 20,
    "overnight.dag_run": "toy_train/manual",
    "overnight.seed": "7",
    "overnight.spec": "e" * 64,
}
#: ... and what registration adds.
OF_REGISTRATION = {
    "overnight.snapshots": "delta:toy/rows@3",
    "overnight.as_of": "2013-09-01",
    "overnight.suites": "rows=0123456789abcdef",
    "overnight.environment": f"lock:{'1' * 64}",
    "overnight.metric": "auc=0.700000",
    "overnight.gates": "auc_at_least: 0.7",
}


def open_registry(use_case: str, uri: str, cache: Path, home: Path | None = None) -> MlflowRegistry:
    """A registry whose key lies in the home, beside the cache when not given; it is made at the first signature."""
    return MlflowRegistry(use_case, uri, cache, ModelSigning(Settings(home=home or cache.parent / "home")))
