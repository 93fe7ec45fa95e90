"""An MLflow server that is away, slow or answers 5xx before, at and after artifact, version and alias."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import artifacts
from pipelines.backends.mlflow_registry import MlflowRegistry
from pipelines.errors import UnavailableError
from tests.faults.proxy import Kind, Proxy, proxying
from tests.faults.registering import outcome, register
from tests.registries import open_registry, sealed, toy_spec
from tests.servers.mlflow import mlflow_server

#: Where a registration is disturbed: before, at and after each thing that it makes.
PLACES = {
    "run": ("POST", r"/runs/create$"),
    "artifact": ("PUT", r"/mlflow-artifacts/artifacts/.*/model\.onnx$"),
    "logged model": ("POST", r"/logged-models$"),
    "signature": ("PUT", r"/mlflow-artifacts/artifacts/.*/signature/"),
    "version": ("POST", r"/model-versions/create$"),
    "production version": ("POST", r"/model-versions/create$"),
    "alias": ("POST", r"/registered-models/alias$"),
}
_NUMBER = itertools.count()
Open = Callable[..., MlflowRegistry]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[str]:
    with mlflow_server(root) as address:
        yield address


@pytest.fixture(scope="module")
def shared(server: str) -> Iterator[Proxy]:
    with proxying(server) as proxy:
        yield proxy


@pytest.fixture
def proxy(shared: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    yield shared
    shared.heal()


@pytest.fixture
def name() -> str:
    """A use case of the test's own: one server has them all."""
    return f"toy_{next(_NUMBER)}"


def spec(name: str) -> Any:
    return toy_spec(name=name, stages=["staging", "production"])


def opened(name: str, root: Path, address: str) -> MlflowRegistry:
    return open_registry(name, address, root / "caches" / name, root / "home")


@pytest.fixture(scope="module")
def clean(root: Path, server: str) -> dict[str, Any]:
    """What a run that nobody disturbed leaves."""
    registry = opened("toy_clean", root, server)
    register(registry, spec("toy_clean"), sealed(root))
    found = outcome(registry)
    assert found["logged models"] == ["READY"]
    return found


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        ("run", "drop"),
        ("artifact", "refuse"),
        ("artifact", "die"),
        ("logged model", "die"),
        ("signature", "drop"),
        ("version", "refuse"),
        ("version", "drop"),
        ("version", "die"),
        ("production version", "die"),
        ("alias", "refuse"),
        ("alias", "drop"),
    ],
)
def test_a_server_that_fails_anywhere_leaves_what_a_clean_run_leaves_after_the_next_try(
    place: str, kind: Kind, name: str, root: Path, server: str, proxy: Proxy, clean: dict[str, Any]
) -> None:
    """`refuse`: 503 for as long as it lasts; `drop`: done once and not answered; `die`: done, and then nothing."""
    registry = opened(name, root, proxy.endpoint)
    method, path = PLACES[place]
    after = 1 if place == "production version" else 0
    proxy.spoil(method, path, kind, times=1 if kind == "drop" else None, after=after)
    try:
        model = register(registry, spec(name), sealed(root))
    except UnavailableError:
        assert kind != "drop", "one lost answer is asked for again"
        proxy.heal()
        with pytest.MonkeyPatch.context() as calm:
            calm.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
            for staged in (False, True):
                for version in registry.versions(staged=staged):
                    assert registry.fetch(version).is_dir(), "a version that is there is whole and signed"
            model = register(registry, spec(name), sealed(root))
    else:
        assert kind == "drop", "nothing was disturbed"
    proxy.heal()
    assert registry.fetch(model).is_dir()
    assert outcome(registry) == clean
    assert registry.sweep(dry_run=True) == ()


def test_a_version_whose_request_arrives_long_after_its_client_gave_up_is_taken_away_again(
    name: str, root: Path, proxy: Proxy, clean: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    registry = opened(name, root, proxy.endpoint)
    proxy.spoil("POST", PLACES["version"][1], "late")
    with pytest.raises(UnavailableError):
        register(registry, spec(name), sealed(root))
    proxy.heal()
    model = register(registry, spec(name), sealed(root))
    assert proxy.release() == 1, "now the server makes what nobody waits for any more, or refuses to"
    registry.sweep(dry_run=False)
    assert register(registry, spec(name), sealed(root)) == model
    assert outcome(registry) == clean


def test_while_the_server_is_away_nothing_changes_and_a_champion_in_the_cache_is_loaded(
    name: str, root: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    model = register(opened(name, root, server), spec(name), sealed(root))
    opened(name, root, server).fetch(model)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    away = opened(name, root, nobody)
    for call in (
        lambda: away.resolve(1, model.run_id),
        lambda: away.release(model.model_copy(update={"name": f"{name}_staging"})),
        lambda: away.set_alias("champion", 1),
        lambda: away.sweep(dry_run=False),
    ):
        with pytest.raises(UnavailableError):
            call()
    assert artifacts.read(away.fetch(model), model.digest, "model.json"), "its bytes need no server"
    same = opened(name, root, server)
    same._client = away._mlflow()  # what MLflow's own server is, while it is away
    assert same.fetch(same.resolve(1, model.run_id)).is_dir()
