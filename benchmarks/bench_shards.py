"""A plan that is cut into shards, against the same plan in one process: two processes, and two Ray nodes.

All on the same cores, the same partition: about a million rows of 40 columns, from published rows to staged scores
(not audited, not published). The bytes must be the same. Left out of every side: training, publishing the rows,
starting processes and importing; for Ray the start of the cluster, of the driver and of its workers as well, each of
which scores a partition of a thousand rows first. Counted: opening the store, loading the model, the pieces' way back,
merging and staging.

The limit is one process, 1.0: shards save nothing on the same cores. What they add is a copy of the pieces into one
file (24 bytes a row and the key), twice the loading of the model (50 ms) and, for Ray, two copies of the pieces through
shared memory.

The first merge read the pieces and encoded them again: 0.81 and 0.55 at 1M rows, 0.84 and 0.79 at 8M, since it has one
core, which takes 0.11 s for a million scores that two cores make in 0.46 s. Prediction, written before row groups were
copied as the bytes that they are (`pipelines/row_groups.py`): the merge goes from 0.13 s to 0.02 s, so 0.95 at 1M.
Measured: staging 0.022 s, 0.92 at 1M and 0.98 at 8M. What was left of Ray's distance was its driver, which took 0.27 s
to leave the cluster while nobody could go on; without that wait 0.90 at 1M and 0.94 at 8M.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from benchmarks.harness import Result, publish
from pipelines import artifacts
from pipelines.backends.psi import PopulationStability
from pipelines.backends.ray_pool import RayPool
from pipelines.machine import usable_cores
from pipelines.ports import Draft, ShardJob
from pipelines.records import ModelRef, Piece, RunInfo, Scored, ScorePlan, Shard
from pipelines.runtime import Runtime
from pipelines.scoring.engine import Engine
from pipelines.settings import Settings
from pipelines.shard_worker import score as score_shard
from pipelines.spec import UseCase
from pipelines.steps import scoring
from pipelines.training.job import Job
from tests.servers.ray import two_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

_ROWS, _WARM, _TRAIN = int(os.environ.get("OVERNIGHT_BENCH_SHARD_ROWS", "1000000")), 1000, 20_000
_NUMERIC, _TEXT = 34, 6
_BIG, *_FIRST = "2024-01-03", "2024-01-01", "2024-01-02"
_SHARDS, _ROUNDS = 2, 3
_FOLDER = "begun"


def _spec() -> UseCase:
    numeric, text = [f"n{at:02d}" for at in range(_NUMERIC)], [f"t{at}" for at in range(_TEXT)]
    columns = {"id": {"type": "int", "nullable": False}, "outcome": {"type": "float"}}
    columns |= {name: {"type": "float"} for name in numeric} | {name: {"type": "string"} for name in text}
    table = {"path": "rows/{partition}.csv", "key": ["id"], "columns": columns}
    return UseCase.model_validate(
        {
            "name": "wide",
            "title": "Wide rows",
            "description": "Forty columns.",
            "owner": "benchmarks",
            "schedule": "0 2 * * *",
            "monitor_schedule": "0 6 * * *",
            "tables": {"rows": table, "labels": table},
            "label": {"column": "outcome", "task": "binary", "positive": {"above": 0}},
            "features": {"numeric": numeric, "categorical": text},
            "training": {"teacher": {"k": 2, "width": 64, "depth": 1, "epochs": 1}, "student": {"epochs": 1}},
            "gates": {"metric": "auc", "bound": 0.5},
            "scoring": {"engine": "ray", "parallel": 2},
        }
    )


def _rows(spec: UseCase, count: int, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    words = np.array([f"w{index:02d}" for index in range(30)])
    numeric = {name: rng.normal(size=count).astype(np.float32) for name in spec.features.numeric}
    text = {name: words[rng.integers(0, 30, count)] for name in spec.features.categorical}
    return pl.DataFrame({"id": np.arange(count), **numeric, **text})


@dataclass(frozen=True, kw_only=True)
class _Case:
    runtime: Runtime
    artifact: Path
    plan: ScorePlan

    def stage(self, pieces: list[Piece]) -> Scored:
        spec, store = self.runtime.spec, self.runtime.store
        return scoring.stage_pieces(spec, store, self.artifact, self.plan, pieces, self.runtime.run)

    def fetch(self, _: ModelRef) -> Path:
        return self.artifact


def _case(root: Path) -> _Case:
    """Trains, publishes the rows, and plans them."""
    from pipelines.training import entry

    spec = _spec()
    data, out = root / "data", root / "model"
    data.mkdir()
    for seed, (part, count) in enumerate((("train", _TRAIN), ("validation", 4000), ("holdout", 4000))):
        rows = _rows(spec, count, seed)
        noise = np.random.default_rng(seed + 50).normal(size=count)
        label = (rows["n00"].to_numpy() + rows["n01"].to_numpy() + noise > 0).astype(np.float32)
        rows.with_columns(pl.Series("label", label)).write_parquet(data / f"{part}.parquet")
    entry.run(Job(spec=spec, data=data, out=out, threads=usable_cores()), lambda _: None)
    features = pl.read_parquet(data / "holdout.parquet", columns=list(spec.features.columns))
    reference = PopulationStability().reference(
        spec,
        features.with_columns(partition=pl.lit(_BIG)),
        pl.DataFrame({"partition": _BIG, "score": Engine(out).score(features)}),
    )
    (out / "reference.json").write_text(reference.model_dump_json(), "utf-8")
    model = ModelRef(name=spec.name, version=1, run_id="bench", digest=artifacts.seal(out))
    runtime = Runtime(spec, Settings(home=root / "var", code_version="bench"), RunInfo(run_id="bench"))
    sizes = {**dict.fromkeys(_FIRST, _WARM), _BIG: _ROWS}
    for seed, (day, count) in enumerate(sizes.items()):
        publish(runtime.store, Draft(partition=day, frame=_rows(spec, count, 100 + seed)))
    cut = scoring.shards({_BIG: _ROWS}, scoring.even(_ROWS, _SHARDS))
    plan = scoring.plan(spec, runtime.store, model, list(sizes), runtime.run)
    shards = (*(Shard(partitions=(day,)) for day in _FIRST), *cut)
    return _Case(runtime=runtime, artifact=out, plan=plan.model_copy(update={"shards": shards}))


def _one(case: _Case) -> tuple[float, Scored]:
    begun = time.perf_counter()
    spec, store = case.runtime.spec, case.runtime.store
    staged = scoring.score(spec, store, case, case.plan, case.runtime.run)  # type: ignore[arg-type]
    return time.perf_counter() - begun, staged


# -- two processes -----------------------------------------------------------------------------------------------------

_WORKER = """
import json, os, sys
os.environ["POLARS_MAX_THREADS"] = "1"
from pathlib import Path
import onnxruntime, pyarrow.parquet, deltalake
from pipelines.shard_worker import score
import pipelines.steps.scoring, pipelines.backends.delta
asked = json.loads(Path(sys.argv[1]).read_text())
print("ready", flush=True)
for line in sys.stdin:
    files = score(asked["spec"], asked["plan"], line, asked["settings"], Path(asked["artifact"]), Path(asked["out"]), 1)
    print(json.dumps(files), flush=True)
"""


@contextmanager
def _workers(case: _Case, root: Path) -> Iterator[list[subprocess.Popen[str]]]:
    asked = {**_asked(case), "artifact": str(case.artifact), "out": str(root / "pieces")}
    (root / "asked.json").write_text(json.dumps(asked), "utf-8")
    command = [sys.executable, "-c", _WORKER, str(root / "asked.json")]
    started = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(_SHARDS)
    ]
    try:
        for worker in started:
            assert _said(worker) == "ready"
        yield started
    finally:
        for worker in started:
            worker.communicate()


def _said(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def _asked(case: _Case) -> dict[str, Any]:
    spec, settings = case.runtime.spec, case.runtime.settings
    return {"spec": spec.model_dump_json(), "plan": case.plan.model_dump_json(), "settings": settings.travelling}


def _two(case: _Case, workers: list[subprocess.Popen[str]]) -> tuple[float, Scored]:
    begun = time.perf_counter()
    waiting = list(case.plan.shards)
    pieces = []
    while waiting:
        together = [(worker, waiting.pop(0)) for worker in workers if waiting]
        for worker, shard in together:
            assert worker.stdin is not None
            worker.stdin.write(shard.model_dump_json() + "\n")
            worker.stdin.flush()
        pieces += [Piece(shard=shard, files=json.loads(_said(worker))) for worker, shard in together]
    staged = case.stage(pieces)
    return time.perf_counter() - begun, staged


# -- two nodes ---------------------------------------------------------------------------------------------------------


def noted(
    spec: str, plan: str, shard: str, settings: Mapping[str, str], artifact: Path, out: Path, threads: int
) -> dict[str, str]:
    """Runs in a Ray worker: scores a shard, and says when it began.

    Args:
        spec: see `pipelines.shard_worker.score`, as for the rest.
    """
    began = time.time()
    files = score_shard(spec, plan, shard, settings, artifact, out, threads)
    if json.loads(shard)["partitions"] == [_BIG]:
        with (Path(settings["snapshots_uri"]).parent / _FOLDER).open("a") as file:
            file.write(f"{began}\n")
    return files


def _nodes(case: _Case, address: str, pieces: Path) -> tuple[float, Scored]:
    """From the moment at which the first of two warm workers begins."""
    file = case.runtime.settings.home / _FOLDER
    file.unlink(missing_ok=True)
    pool = RayPool(address, f"{__name__}:noted")
    job = ShardJob(spec=case.runtime.spec, plan=case.plan, settings=case.runtime.settings.travelling)
    staged = case.stage(pool.run(job, case.artifact, pieces))
    return time.time() - min(map(float, file.read_text().split())), staged


def measure() -> list[Result]:
    """Rows a second, the best of three rounds in turn."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        case = _case(root)
        _, expected = _one(case)
        found: dict[str, list[float]] = {"one": [], "two": [], "nodes": []}
        with _workers(case, root) as workers, two_nodes() as nodes:
            for turn in range(_ROUNDS):
                ways: dict[str, Callable[[], tuple[float, Scored]]] = {
                    "one": lambda: _one(case),
                    "two": lambda: _two(case, workers),
                    "nodes": lambda turn=turn: _nodes(case, nodes.address, root / f"ray-{turn}" / "pieces"),  # type: ignore[misc]
                }
                for name, way in ways.items():
                    seconds, staged = way()
                    assert [part.digest for part in staged.staged] == [part.digest for part in expected.staged]
                    found[name].append(seconds)
        print({name: [round(each, 2) for each in times] for name, times in found.items()}, file=sys.stderr)
    one, two, ray = (_ROWS / min(found[name]) for name in ("one", "two", "nodes"))
    about = f"{_ROWS:,} rows x {_NUMERIC + _TEXT}, {usable_cores()} cores; one process"
    return [
        Result(name="shards_two_processes_vs_one", ours=two, peer=one, unit="rows/s", goal=0.9, note=about),
        Result(name="shards_two_ray_nodes_vs_one", ours=ray, peer=one, unit="rows/s", goal=0.9, note=about),
    ]
