"""The registry against a real MLflow server on loopback, as `make up` starts one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines import artifacts
from pipelines.errors import IntegrityError, NotFoundError
from pipelines.training.entry import run
from pipelines.training.job import Job
from tests.registries import OF_REGISTRATION, OF_TRAINING, open_registry
from tests.unit.training.conftest import make_spec, write

SPEC = make_spec(
    "binary",
    teacher={"k": 1, "epochs": 1, "width": 8, "depth": 1},
    student={"epochs": 1, "widths": [8]},
    calibration_rows=64,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    command += ["--artifacts-destination", str(tmp_path / "artifacts")]
    with (tmp_path / "server.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True, cwd=tmp_path)
        try:
            _wait(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server ended"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise AssertionError("the server did not come up")


def test_a_model_goes_to_the_server_and_comes_back_and_tampering_is_seen(server: str, tmp_path: Path) -> None:
    folder = tmp_path / "artifact"
    run(Job(spec=SPEC, data=write(tmp_path / "data", "binary"), out=folder, threads=1), lambda _: None)
    digest = artifacts.seal(folder)
    registry = open_registry(SPEC.name, server, tmp_path / "cache")

    assert registry.versions() == []
    assert registry.alias("champion") is None
    with pytest.raises(NotFoundError):
        registry.get(1)

    key = OF_TRAINING
    run_id = registry.start_training(SPEC, key)
    assert registry.start_training(SPEC, key) == run_id
    registry.log_progress(run_id, {"epoch": 1, "teacher_loss": 0.5})
    registry.log_artifact(run_id, folder, {"student_int8_auc": 0.7, "of_one_class": float("nan")})
    model = registry.register(SPEC, run_id, folder, OF_REGISTRATION)
    assert registry.register(SPEC, run_id, folder, OF_REGISTRATION) == model
    assert (model.version, model.digest) == (1, digest)
    registry.set_alias("champion", 1)
    assert registry.alias("champion") == 1
    assert registry.url(run_id) == f"{server}/#/experiments/1/runs/{run_id}"

    fetched = registry.fetch(model)
    assert (fetched / "model.onnx").read_bytes() == (folder / "model.onnx").read_bytes()

    code = (
        "import sys, mlflow; mlflow.set_tracking_uri(sys.argv[1]);"
        "model = mlflow.pyfunc.load_model('models:/toy_binary@champion');"
        "print(len(model.predict(model.input_example)))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code, server], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=200
    )
    assert loaded.stdout.strip() == "1", loaded.stderr

    stored = next((tmp_path / "artifacts").rglob(f"artifact/{digest[:16]}/model.onnx"))
    stored.write_bytes(stored.read_bytes()[:-1] + b"\x00")
    with pytest.raises(IntegrityError, match=r"changed: model\.onnx"):
        open_registry(SPEC.name, server, tmp_path / "another-cache").fetch(model)
