"""From nothing to a first prediction: a new process resolves the champion, verifies it, loads it and scores one row.

The peer is `mlflow.pyfunc.load_model("models:/flights@champion")` and `predict` in a new process, which verifies
nothing. Prediction, written before measuring, from import times on two cores: MLflow 2.5 s with pandas, a second for
its database and for ONNX; ours: Polars, Delta Lake and ONNX Runtime 0.7 s, model-signing 0.5 s, since a verified copy
in the cache needs neither MLflow nor pandas. A third, if nothing else costs anything.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.bench_scoring import _rows, _spec
from benchmarks.harness import Result, seconds
from pipelines import artifacts
from pipelines.machine import usable_cores
from pipelines.records import Check, Promotion, RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.steps.logs import append
from pipelines.steps.promotions import PROMOTIONS, epoch_key
from pipelines.training.job import Job

_OURS = """
import sys, json, polars
from pipelines.runtime import Runtime
from pipelines.scoring.engine import Engine
runtime = Runtime.open("flights")
model = runtime.champion()
engine = Engine(runtime.registry.fetch(model), digest=model.digest)
print(engine.score(polars.DataFrame(json.loads(sys.argv[1])))[0])
assert "mlflow" not in sys.modules
"""
_PEER = """
import sys, json, mlflow, pandas
model = mlflow.pyfunc.load_model("models:/flights@champion")
print(model.predict(pandas.DataFrame(json.loads(sys.argv[1])))["score"][0])
"""
_RUN = RunInfo(run_id="bench", dag_id="bench", code_version="bench")
_TRAINING = ("training_key", "training_set", "spec", "code_version", "dag_run", "seed")
_REGISTRATION = ("snapshots", "as_of", "suites", "environment", "metric", "gates")


def _register(home: Path) -> dict[str, Any]:
    """A champion as a training leaves it, verified once on this machine; and one row."""
    from pipelines.training import entry

    spec, generator = _spec(), np.random.default_rng(7)
    data, out = home / "data", home / "out"
    data.mkdir()
    for part, count in (("train", 5000), ("validation", 2000), ("holdout", 2000)):
        _rows(spec, count, generator).write_parquet(data / f"{part}.parquet")
    entry.run(Job(spec=spec, data=data, out=out, threads=usable_cores()), lambda _: None)
    artifacts.seal(out)
    runtime = Runtime(spec, Settings(home=home), _RUN)
    registry = runtime.registry
    run_id = registry.start_training(spec, {f"overnight.{tag}": "a" * 64 for tag in _TRAINING})
    registry.log_artifact(run_id, out, {})
    model = registry.register(spec, run_id, out, {f"overnight.{tag}": "bench" for tag in _REGISTRATION})
    registry.set_alias("champion", model.version)
    entered = Promotion(
        epoch=1,
        kind="promote",
        version=model.version,
        previous=None,
        reason="bench",
        as_of="2013-09-01",
        run=_RUN,
        trained_by=model.run_id,
    )
    append(
        runtime.store,
        spec.name,
        PROMOTIONS,
        epoch_key(1),
        pl.DataFrame({"epoch": [1], "version": [model.version], "entry": [entered.model_dump_json()]}),
        [Check(name="bench", passed=True, observed="a benchmark")],
        _RUN,
        suite="bench",
        suite_digest="0" * 64,
    )
    registry.fetch(model)
    return _rows(spec, 1, generator).drop("label").to_dict(as_series=False)


def _timed(code: str, row: dict[str, Any], env: dict[str, str], folder: Path) -> tuple[float, float]:
    """Best of five new processes, after one that warmed the disk's cache, and the score."""
    command = [sys.executable, "-c", code, json.dumps(row)]
    said: list[str] = []

    def once() -> None:
        said.append(
            subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True, text=True).stdout.strip()
        )

    once()
    return seconds(once, repeats=5), float(said[-1])


def measure() -> list[Result]:
    """Seconds from starting the interpreter to its end."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        row = _register(home)
        settings = Settings(home=home)
        env = {**os.environ, "OVERNIGHT_HOME": str(home), "OVERNIGHT_CODE_VERSION": "bench"}
        ours, score = _timed(_OURS, row, env, home)
        peer, expected = _timed(_PEER, row, {**env, "MLFLOW_TRACKING_URI": settings.tracking_uri}, home)
        # The registered graph is the same: the peer feeds it text, and computes in the same types.
        assert abs(score - expected) < 1e-3, (score, expected)
    return [
        Result(
            name="cold_load_of_the_champion_to_first_prediction",
            ours=ours,
            peer=peer,
            unit="s",
            goal=3.0,
            note="a new process: log, cached copy, signature and digests, engine, one row; peer: mlflow.pyfunc, "
            "SQLite store, nothing verified",
        )
    ]
