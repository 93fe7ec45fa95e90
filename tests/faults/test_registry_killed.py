"""kill -9 at every point of a registration, then the same again: one whole signed version, and nothing else."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.backends import mlflow_owners
from pipelines.backends.mlflow_names import WRITING
from pipelines.backends.mlflow_registry import MlflowRegistry
from tests.faults.registering import outcome, register, register_elsewhere
from tests.registries import OF_REGISTRATION, OF_TRAINING, open_registry, sealed, toy_spec

SPEC = toy_spec(stages=["staging", "production"])
POINTS = [
    "artifact.uploaded",
    "register.marked",
    "register.opened",
    "register.uploaded",
    "register.signed",
    "register.made",
    "register.tidied",
    "release.copied",
]
#: What no version names when the process has died at these points.
LEAVING = {"register.opened", "register.uploaded", "register.signed"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact, and a store with nothing in it but its tables: MLflow takes seconds to make them."""
    root = tmp_path_factory.mktemp("killed")
    sealed(root)
    open_registry(SPEC.name, f"sqlite:///{root / 'empty' / 'mlflow.db'}", root / "unused").versions()
    return root


@pytest.fixture
def uri(root: Path, tmp_path: Path) -> str:
    shutil.copytree(root / "empty", tmp_path / "mlflow")
    return f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"


@pytest.fixture
def registry(uri: str, tmp_path: Path) -> MlflowRegistry:
    return open_registry(SPEC.name, uri, tmp_path / "cache", tmp_path / "home")


@pytest.fixture(scope="module")
def clean(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a run that nobody disturbed leaves."""
    folder = tmp_path_factory.mktemp("clean")
    shutil.copytree(root / "empty", folder / "mlflow")
    registry = open_registry(SPEC.name, f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}", folder / "cache")
    model = register(registry, SPEC, sealed(root))
    assert register(registry, SPEC, sealed(root)) == model
    found = outcome(registry)
    assert len(found["versions, staged: False"]) == len(found["versions, staged: True"]) == 1
    assert found["logged models"] == ["READY"]
    assert found["runs"][0][0] == "FINISHED"
    return found


@pytest.mark.parametrize("point", POINTS)
def test_a_registration_killed_anywhere_and_run_again_ends_like_a_clean_one(
    point: str, root: Path, uri: str, registry: MlflowRegistry, clean: dict[str, Any], tmp_path: Path
) -> None:
    assert register_elsewhere(uri, tmp_path, SPEC, sealed(root), point) == -signal.SIGKILL
    for staged in (False, True):
        for version in registry.versions(staged=staged):
            assert registry.fetch(version).is_dir(), "a version that is there is whole and signed"
    before = registry.sweep(dry_run=True)
    assert bool(before) >= (point in LEAVING)
    model = register(registry, SPEC, sealed(root))
    assert registry.fetch(model).is_dir()
    assert outcome(registry) == clean
    assert registry.sweep(dry_run=True) == ()


@pytest.mark.parametrize("point", ["artifact.uploaded", "register.signed"])
def test_a_sweep_alone_removes_what_a_dead_registration_left(
    point: str, root: Path, uri: str, registry: MlflowRegistry, tmp_path: Path
) -> None:
    assert register_elsewhere(uri, tmp_path, SPEC, sealed(root), point) == -signal.SIGKILL
    told = registry.sweep(dry_run=True)
    assert told
    assert registry.sweep(dry_run=True) == told, "a dry run removes nothing"
    assert set(told) <= set(registry.sweep(dry_run=False))
    assert registry.sweep(dry_run=True) == ()
    client = registry._mlflow()
    experiment = client.get_experiment_by_name(SPEC.name).experiment_id
    assert client.search_logged_models([experiment]) == []
    assert not list((tmp_path / "mlflow" / "artifacts").rglob("model.onnx")) or point == "register.signed"
    assert not list((tmp_path / "mlflow" / "artifacts").rglob("signature/*.json"))


def test_what_somebody_is_writing_is_never_swept_and_what_another_machine_left_only_after_a_day(
    root: Path, registry: MlflowRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = registry.start_training(SPEC, OF_TRAINING)
    registry.log_artifact(run_id, sealed(root), {})
    client = registry._mlflow()
    experiment = client.get_run(run_id).info.experiment_id

    def begun(mark: str) -> str:
        tags = {"overnight.digest": "0" * 64, "overnight.run_id": run_id, WRITING: mark}
        return str(client.create_logged_model(experiment, "begun", run_id, tags=tags).model_id)

    with mlflow_owners.writing() as mark:
        mine = begun(mark)
        theirs = begun("another-machine.4026531836:17:123456:1700000000:abcdef")
        model = registry.register(SPEC, run_id, sealed(root), OF_REGISTRATION)
        assert registry.sweep(dry_run=False) == (), "both may still be at work"
    (told,) = registry.sweep(dry_run=True)
    assert mine in told
    later = time.time() + mlflow_owners.GRACE_SECONDS + 60
    monkeypatch.setattr(mlflow_owners.time, "time", lambda: later)
    assert {name.split()[2] for name in registry.sweep(dry_run=False)} == {mine, theirs}
    assert registry.fetch(model).is_dir()
