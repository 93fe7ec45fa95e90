"""The registry on a real MLflow: an SQLite store in a folder, and a server that is down."""

from __future__ import annotations

import http.server
import os
import pickle
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines import artifacts
from pipelines.backends.mlflow_registry import DIGEST, MlflowRegistry
from pipelines.errors import IntegrityError, NotFoundError, TransientError, UnavailableError
from pipelines.ports import ModelRegistry
from pipelines.training.entry import run
from pipelines.training.job import Job
from tests.registries import OF_REGISTRATION, OF_TRAINING, open_registry
from tests.unit.training.conftest import make_spec, write

QUICK: dict[str, Any] = {
    "teacher": {"k": 1, "epochs": 1, "width": 8, "depth": 1},
    "student": {"epochs": 2, "widths": [8]},
    "calibration_rows": 64,
}
KEY = OF_TRAINING


@cache
def trained(root: Path, task: str) -> Path:
    """A sealed artifact of a task."""
    out = root / f"artifact-{task}"
    run(Job(spec=make_spec(task, **QUICK), data=write(root / f"data-{task}", task), out=out, threads=1), lambda _: None)
    artifacts.seal(out)
    return out


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def empty_store(root: Path) -> Path:
    """A store whose database was made once: MLflow takes seconds for it."""
    folder = root / "store"
    open_registry("toy_binary", f"sqlite:///{folder / 'mlflow.db'}", root / "unused").versions()
    return folder


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> str:
    shutil.copytree(empty_store, tmp_path / "mlflow")
    return f"sqlite:///{tmp_path / 'mlflow' / 'mlflow.db'}"


@pytest.fixture
def registry(store: str, tmp_path: Path) -> MlflowRegistry:
    return open_registry("toy_binary", store, tmp_path / "cache")


@pytest.fixture
def artifact(root: Path, tmp_path: Path) -> Path:
    """A copy of the sealed binary artifact that a test may spoil."""
    return Path(shutil.copytree(trained(root, "binary"), tmp_path / "artifact"))


SPEC = make_spec("binary", **QUICK)


def register(registry: ModelRegistry, folder: Path, key: str = "a" * 64) -> Any:
    run_id = registry.start_training(SPEC, {**OF_TRAINING, "overnight.training_key": key})
    registry.log_artifact(run_id, folder, {"student_int8_auc": 0.7})
    return registry.register(SPEC, run_id, folder, OF_REGISTRATION)


def test_the_same_training_key_gives_the_same_run(registry: MlflowRegistry) -> None:
    first = registry.start_training(SPEC, {**KEY, "overnight.code_version": "abc"})
    assert registry.start_training(SPEC, KEY) == first
    assert registry.start_training(SPEC, {"overnight.training_key": "b" * 64}) != first
    assert registry._mlflow().get_run(first).data.tags["overnight.code_version"] == "abc"


def test_progress_becomes_curves_over_epochs(registry: MlflowRegistry) -> None:
    run_id = registry.start_training(SPEC, KEY)
    for epoch in (1, 2):
        registry.log_progress(run_id, {"epoch": epoch, "teacher_loss": 1 / epoch})
    history = registry._mlflow().get_metric_history(run_id, "teacher_loss")
    assert [(point.step, point.value) for point in history] == [(1, 1.0), (2, 0.5)]


def test_what_comes_within_an_epoch_lies_between_the_ends_of_epochs(registry: MlflowRegistry) -> None:
    run_id = registry.start_training(SPEC, KEY)
    speed = {"rows_per_second": 10.0, "eta_seconds": 5.0}
    registry.log_progress(run_id, {"epoch": 1, "step": 20, "teacher_loss": 0.5, "teacher_validation": 0.6, **speed})
    registry.log_progress(run_id, {"epoch": 2, "step": 31, "teacher_recent_loss": 0.45, **speed})
    registry.log_progress(run_id, {"epoch": 2, "step": 40, "teacher_loss": 0.4, "teacher_validation": 0.5, **speed})
    registry.log_progress(run_id, {"epoch": 1, "step": 7, "student_loss": 0.3, **speed})
    client = registry._mlflow()

    def steps(name: str) -> list[int]:
        return [point.step for point in client.get_metric_history(run_id, name)]

    assert steps("teacher_loss") == steps("teacher_validation") == [20, 40]
    assert steps("teacher_recent_loss") == [31]
    assert steps("teacher_rows_per_second") == steps("teacher_eta_seconds") == [20, 31, 40]
    assert steps("student_rows_per_second") == [7], "each network counts its own steps"
    assert not {"step", "epoch", "rows_per_second"} & client.get_run(run_id).data.metrics.keys()


def test_a_version_is_registered_once_a_run_with_all_its_tags(registry: MlflowRegistry, artifact: Path) -> None:
    first = register(registry, artifact)
    assert first.version == 1
    assert first.digest == artifacts.seal(artifact)
    assert register(registry, artifact) == first
    second = register(registry, artifact, key="b" * 64)
    assert second.version == 2
    assert second.run_id != first.run_id
    assert registry.versions() == [first, second]
    assert registry.get(1) == first
    version = registry._mlflow().get_model_version("toy_binary", "1")
    assert version.tags["overnight.snapshots"] == "delta:toy/rows@3"
    assert registry._mlflow().get_run(first.run_id).data.metrics["student_int8_auc"] == 0.7
    assert registry._mlflow().get_run(first.run_id).info.status == "FINISHED"
    assert registry.url(first.run_id) is None, "there is no server to look at"


def test_every_training_is_read_back_with_what_was_written_on_it(registry: MlflowRegistry, artifact: Path) -> None:
    assert registry.trainings() == []
    model = register(registry, artifact)
    refused = registry.start_training(SPEC, {"overnight.training_key": "b" * 64, "overnight.as_of": "2013-09-01"})
    registry.annotate(refused, {"overnight.gate": "refused"})
    experiment = registry._mlflow().get_experiment_by_name("toy_binary").experiment_id
    registry._mlflow().create_run(experiment, tags={"by": "a notebook"})
    first, second = registry.trainings()
    assert (first.run_id, first.model) == (model.run_id, model)
    assert first.metrics == {"student_int8_auc": 0.7}
    assert first.model_tags["overnight.snapshots"] == "delta:toy/rows@3"
    assert (second.run_id, second.model, second.model_tags) == (refused, None, {})
    assert second.tags["overnight.gate"] == "refused"
    assert second.tags["overnight.as_of"] == "2013-09-01"
    assert not [name for name in first.tags if name.startswith("mlflow.")]


def test_what_is_not_there_is_not_found(registry: MlflowRegistry, artifact: Path) -> None:
    assert registry.versions() == []
    assert registry.alias("champion") is None
    with pytest.raises(NotFoundError):
        registry.get(1)
    with pytest.raises(NotFoundError):
        registry.register(SPEC, "0" * 32, artifact, OF_REGISTRATION)
    register(registry, artifact)
    with pytest.raises(NotFoundError):
        registry.set_alias("champion", 7)
    assert registry.alias("champion") is None


def test_aliases_move_and_go(registry: MlflowRegistry, artifact: Path) -> None:
    register(registry, artifact)
    register(registry, artifact, key="b" * 64)
    registry.set_alias("champion", 1)
    registry.set_alias("challenger", 2)
    assert (registry.alias("champion"), registry.alias("challenger")) == (1, 2)
    registry.set_alias("champion", 2)
    registry.set_alias("challenger", None)
    registry.set_alias("challenger", None)
    assert (registry.alias("champion"), registry.alias("challenger")) == (2, None)


def test_a_fetched_artifact_is_byte_for_byte_what_was_stored(
    registry: MlflowRegistry, artifact: Path, tmp_path: Path
) -> None:
    model = register(registry, artifact)
    fetched = registry.fetch(model)
    assert {path.name: path.read_bytes() for path in fetched.iterdir()} == {
        path.name: path.read_bytes() for path in artifact.iterdir()
    }
    assert registry.fetch(model) == fetched
    kept = {path.name for path in (tmp_path / "cache").iterdir()}
    assert {model.digest, f"{model.digest}.signature.json"} < kept
    assert len(kept) == 3


def stored(store: str, digest: str) -> Path:
    """Where the run's artifact lies."""
    found = list((Path(store.removeprefix("sqlite:///")).parent / "artifacts").rglob(f"artifact/{digest[:16]}"))
    assert len(found) == 1
    return found[0]


@pytest.mark.parametrize("how", ["flip", "add a pickle", "remove", "swap in a link", "forge the digests"])
def test_a_tampered_artifact_is_refused_and_never_parsed(
    registry: MlflowRegistry, store: str, artifact: Path, tmp_path: Path, how: str
) -> None:
    model = register(registry, artifact)
    folder, canary = stored(store, model.digest), tmp_path / "canary"
    served = folder / "model.onnx"
    if how == "flip":
        served.write_bytes(served.read_bytes()[:-1] + b"\x00")
    elif how == "add a pickle":

        class Evil:
            def __reduce__(self) -> Any:
                return (os.mkdir, (str(canary),))

        (folder / "model.pkl").write_bytes(pickle.dumps(Evil()))
    elif how == "remove":
        served.unlink()
    elif how == "swap in a link":
        (tmp_path / "elsewhere.onnx").write_bytes(b"other weights")
        served.unlink()
        served.symlink_to(tmp_path / "elsewhere.onnx")
    else:
        served.write_bytes(b"other weights")
        artifacts.seal(folder)
    # MLflow itself does not follow a link out of its store: to it, nothing is there.
    with pytest.raises(NotFoundError if how == "swap in a link" else IntegrityError):
        registry.fetch(model)
    assert not canary.exists()
    assert not (tmp_path / "cache" / model.digest).exists(), "nothing that failed is left to be used"


def test_a_cached_copy_is_verified_on_every_fetch_and_replaced_by_the_next(
    registry: MlflowRegistry, artifact: Path
) -> None:
    model = register(registry, artifact)
    cached = registry.fetch(model) / "model.json"
    cached.write_text("{}", "utf-8")
    with pytest.raises(IntegrityError, match=r"changed: model\.json"):
        registry.fetch(model)
    assert (registry.fetch(model) / "model.json").read_bytes() == (artifact / "model.json").read_bytes()


def test_only_what_the_run_holds_can_be_registered(registry: MlflowRegistry, artifact: Path) -> None:
    run_id = registry.start_training(SPEC, KEY)
    with pytest.raises(IntegrityError, match="the run holds None"):
        registry.register(SPEC, run_id, artifact, OF_REGISTRATION)
    registry.log_artifact(run_id, artifact, {})
    (artifact / "model.json").write_text("{}", "utf-8")
    with pytest.raises(IntegrityError, match=r"changed: model\.json"):
        registry.register(SPEC, run_id, artifact, OF_REGISTRATION)
    artifacts.seal(artifact)
    with pytest.raises(IntegrityError, match="the run holds"):
        registry.register(SPEC, run_id, artifact, OF_REGISTRATION)
    assert registry.versions() == []


def test_an_unsealed_folder_is_not_stored(registry: MlflowRegistry, artifact: Path) -> None:
    (artifact / "digests.json").unlink()
    run_id = registry.start_training(SPEC, KEY)
    with pytest.raises(IntegrityError, match="not sealed"):
        registry.log_artifact(run_id, artifact, {})


def test_a_crash_before_the_version_leaves_nothing_readable_and_a_repeat_heals_it(
    registry: MlflowRegistry, artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = registry.start_training(SPEC, KEY)
    registry.log_artifact(run_id, artifact, {})
    client = registry._mlflow()

    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as crash:
        crash.setattr(client, "create_model_version", interrupt)
        with pytest.raises(KeyboardInterrupt):
            registry.register(SPEC, run_id, artifact, OF_REGISTRATION)
    assert registry.versions() == []
    assert registry.register(SPEC, run_id, artifact, OF_REGISTRATION).version == 1


def test_a_version_that_overnight_did_not_make_does_not_count(registry: MlflowRegistry, artifact: Path) -> None:
    ours = register(registry, artifact)
    registry._mlflow().create_model_version(
        "toy_binary", source=registry._mlflow().get_model_version("toy_binary", "1").source
    )
    assert registry.versions() == [ours]
    with pytest.raises(NotFoundError, match=DIGEST):
        registry.get(2)
    with pytest.raises(NotFoundError, match=DIGEST):
        registry.set_alias("champion", 2)


def test_two_trainers_at_once_share_the_run_and_the_version(store: str, artifact: Path, tmp_path: Path) -> None:
    barrier = threading.Barrier(2)

    def one(number: int) -> Any:
        mine = open_registry("toy_binary", store, tmp_path / f"cache{number}", tmp_path / "home")
        mine._mlflow()
        barrier.wait()
        for _ in range(20):
            try:
                return register(mine, artifact)
            except TransientError:  # The loser of a race tries again, as a task does.
                continue
        raise AssertionError("it never got through")

    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(one, range(2)))
    again = open_registry("toy_binary", store, tmp_path / "cache", tmp_path / "home")
    assert [register(again, artifact), made[0]] == [made[1], made[1]]
    assert again.fetch(made[0]).is_dir()
    assert again.versions() == [made[0]], "the loser of a race takes its version away"
    assert again.sweep(dry_run=True) == ()


def test_anybody_loads_the_champion_with_pyfunc_and_no_code_of_ours(
    registry: MlflowRegistry, store: str, artifact: Path, tmp_path: Path
) -> None:
    import onnxruntime

    registry.set_alias("champion", register(registry, artifact).version)
    code = """
import sys, mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/toy_binary@champion")
frame = pandas.DataFrame({
    "wide": [20.0, None, float("inf")], "narrow": [0.0, None, 0.01], "gaps": [5.0, 5.0, 5.0],
    "colour": ["red", None, "never seen"], "shape": ["round", None, float("nan")],
})
print(*model.predict(frame)["score"].tolist())
assert model.metadata.signature is not None and model.input_example is not None
assert len(model.predict(model.input_example)) == 1
assert not any(name.split(".")[0] == "pipelines" for name in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, store], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    nan = float("nan")
    session = onnxruntime.InferenceSession(artifact / "model.onnx", providers=["CPUExecutionProvider"])
    expected = session.run(
        ["score"],
        {
            "wide": np.array([20, nan, float("inf")], np.float32),
            "narrow": np.array([0, nan, 0.01], np.float32),
            "gaps": np.array([5, 5, 5], np.float32),
            "colour": np.array(["red", "", "never seen"], object),
            "shape": np.array(["round", "", ""], object),
        },
    )[0]
    np.testing.assert_allclose([float(word) for word in done.stdout.split()], expected, rtol=1e-6)


def test_a_multiclass_model_gives_pyfunc_one_column_a_class(root: Path, store: str, tmp_path: Path) -> None:
    import mlflow
    import pandas

    spec, folder = make_spec("multiclass", **QUICK), trained(root, "multiclass")
    registry = open_registry("toy_multiclass", store, tmp_path / "cache")
    run_id = registry.start_training(spec, KEY)
    registry.log_artifact(run_id, folder, {})
    version = registry.register(spec, run_id, folder, OF_REGISTRATION).version
    source = registry._mlflow().get_model_version_download_uri("toy_multiclass", str(version))
    local = mlflow.artifacts.download_artifacts(source, tracking_uri=store)
    frame = pandas.DataFrame(
        {
            "wide": [1.0, 2.0],
            "narrow": [0.0, 0.0],
            "gaps": [5.0, None],
            "colour": ["red", None],
            "shape": ["round", "x"],
        }
    )
    found = mlflow.pyfunc.load_model(local).predict(frame)
    assert list(found.columns) == ["score:low", "score:middle", "score:high"]
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("feature", ["wide", "colour"])
def test_a_model_of_one_feature_takes_a_data_frame_of_one_column(root: Path, tmp_path: Path, feature: str) -> None:
    import mlflow
    import onnxruntime
    import pandas

    from pipelines.backends.mlflow_model import save

    chosen = (
        {"numeric": ("wide",), "categorical": ()} if feature == "wide" else {"numeric": (), "categorical": ("colour",)}
    )
    spec = SPEC.model_copy(update={"features": SPEC.features.model_copy(update=chosen)})
    run(Job(spec=spec, data=write(tmp_path / "data", "binary"), out=tmp_path / "out", threads=1), lambda _: None)
    save(tmp_path / "out", tmp_path / "mlflow", run_id="r", model_id="m", location=str(tmp_path / "mlflow"))
    values = [1.0, 20.0, None] if feature == "wide" else ["red", None, "blue"]
    found = mlflow.pyfunc.load_model(str(tmp_path / "mlflow")).predict(pandas.DataFrame({feature: values}))
    fed = np.array(values, np.float32) if feature == "wide" else np.array(["red", "", "blue"], object)
    expected = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx").run(["score"], {feature: fed})[0]
    np.testing.assert_allclose(found["score"], expected, rtol=1e-6)


def test_mlflow_says_nothing_on_its_own(
    registry: MlflowRegistry, artifact: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    registry.fetch(register(registry, artifact))
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err == ""


class _Broken(http.server.BaseHTTPRequestHandler):
    def _answer(self) -> None:
        self.send_response(503)
        self.end_headers()

    do_GET = do_POST = _answer  # noqa: N815 (the names that the base class calls)

    def log_message(self, *arguments: Any) -> None:
        """Says nothing."""


@pytest.fixture
def broken_server() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Broken)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_server_that_answers_503_or_nothing_is_unavailable(
    broken_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    for uri in (broken_server, nobody):
        registry = open_registry("toy_binary", uri, tmp_path / "cache")
        with pytest.raises(UnavailableError, match="toy_binary: open the experiment"):
            registry.start_training(SPEC, KEY)
        with pytest.raises(UnavailableError):
            registry.alias("champion")
        with pytest.raises(UnavailableError):
            registry.versions()


def test_the_module_imports_no_mlflow_by_itself() -> None:
    code = (
        "import sys, pipelines.backends.mlflow_registry; print(sorted({'mlflow', 'pandas', 'onnx'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )
