"""Model registries for tests: MLflow with a signing key of the test's own, and everything that a version must have."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from pipelines import artifacts
from pipelines.backends.mlflow_registry import MlflowRegistry
from pipelines.backends.model_signature import ModelSigning
from pipelines.settings import Settings
from pipelines.spec import UseCase

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


def toy_spec(**more: Any) -> UseCase:
    """A use case whose network trains in a second.

    Args:
        more: fields of the spec.
    """
    from tests.unit.training.conftest import make_spec

    small = {"k": 1, "epochs": 1, "width": 8, "depth": 1}
    spec = make_spec("binary", teacher=small, student={"epochs": 1, "widths": [8]}, calibration_rows=64)
    return UseCase.model_validate({**spec.model_dump(), **more})


@cache
def sealed(root: Path) -> Path:
    """A sealed artifact of `toy_spec`, trained once a folder."""
    from pipelines.training.entry import run
    from pipelines.training.job import Job
    from tests.unit.training.conftest import write

    job = Job(spec=toy_spec(), data=write(root / "data", "binary"), out=root / "artifact", threads=1)
    run(job, lambda _: None)
    artifacts.seal(root / "artifact")
    return root / "artifact"
