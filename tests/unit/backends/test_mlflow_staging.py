"""Staging and production as two registered models: production versions of such a use case come from staging alone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.backends.mlflow_registry import MlflowRegistry
from pipelines.errors import IntegrityError, NotFoundError
from pipelines.records import ModelRef
from tests.registries import OF_REGISTRATION, OF_TRAINING, open_registry, sealed, toy_spec

SPEC = toy_spec(stages=["staging", "production"])


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("staging")


@pytest.fixture(scope="module")
def registry(root: Path) -> MlflowRegistry:
    return open_registry(SPEC.name, f"sqlite:///{root / 'mlflow' / 'mlflow.db'}", root / "cache")


def staged(registry: MlflowRegistry, root: Path, key: str) -> ModelRef:
    run_id = registry.start_training(SPEC, {**OF_TRAINING, "overnight.training_key": key * 64})
    registry.log_artifact(run_id, sealed(root), {})
    return registry.register(SPEC, run_id, sealed(root), OF_REGISTRATION)


def test_a_version_is_registered_in_staging_and_released_once_as_it_is(registry: MlflowRegistry, root: Path) -> None:
    model = staged(registry, root, "a")
    assert (model.name, registry.versions(), registry.versions(staged=True)) == ("toy_binary_staging", [], [model])
    with pytest.raises(NotFoundError):
        registry.set_alias("champion", model.version)
    registry.set_alias("challenger", model.version, staged=True)
    assert (registry.alias("challenger", staged=True), registry.alias("challenger")) == (model.version, None)
    with pytest.raises(NotFoundError, match="no model of toy_binary"):
        registry.release(model.model_copy(update={"name": "flights"}))
    assert registry.versions() == []
    released = registry.release(model)
    assert released.name == "toy_binary"
    assert (released.run_id, released.digest) == (model.run_id, model.digest)
    assert registry.release(model) == released == registry.release(released), "a repeat copies nothing"
    assert registry.versions() == [released]
    (before,), (after,) = registry.registered(staged=True), registry.registered()
    assert before.tags == after.tags
    assert registry.fetch(released) == registry.fetch(model)
    assert registry.sweep(dry_run=True) == ()
    assert [run.model for run in registry.trainings()] == [released]


def test_what_was_tampered_with_in_staging_is_not_released(registry: MlflowRegistry, root: Path) -> None:
    model = staged(registry, root, "b")
    registry._mlflow().delete_model_version_tag(model.name, str(model.version), "overnight.signature")
    fresh = open_registry(SPEC.name, registry._uri, root / "another" / "cache", root / "home")
    with pytest.raises(IntegrityError, match="not signed"):
        fresh.release(model)
    assert len(registry.versions()) == 1


def test_a_copy_whose_tags_were_changed_is_refused(registry: MlflowRegistry, root: Path) -> None:
    model = staged(registry, root, "c")
    released = registry.release(model)
    registry._mlflow().set_model_version_tag(released.name, str(released.version), "overnight.digest", "0" * 64)
    with pytest.raises(IntegrityError, match=r"its overnight\.digest is"):
        registry.release(model)


def test_anybody_loads_a_released_champion_with_pyfunc_and_no_code_of_ours(
    registry: MlflowRegistry, root: Path, tmp_path: Path
) -> None:
    registry.set_alias("champion", 1)
    code = """
import sys
class Closed:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "pipelines":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Closed())
import mlflow
model = mlflow.pyfunc.load_model("models:/toy_binary@champion")
print(len(model.predict(model.input_example)))
"""
    env = {**os.environ, "MLFLOW_TRACKING_URI": registry._uri}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout == "1\n", done.stderr
