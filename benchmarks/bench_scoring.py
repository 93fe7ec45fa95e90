"""Scoring: the served int8 graph by our engine, against LightGBM and the MLflow client's pyfunc on the same rows.

The limit is the bare int8 session on prepared arrays. Prediction, written before measuring: string encoding inside the
graph takes about half of the time, so near 1 M rows/s on two cores; LightGBM (200 trees, 63 leaves) gave 0.26 M rows/s
on a comparable machine.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.harness import Result, seconds
from pipelines.scoring.engine import Engine, usable_cores
from pipelines.spec import UseCase, load_spec
from pipelines.training.job import Job

_ROWS, _TRAIN = 400_000, 20_000


def _spec() -> UseCase:
    """The flights' model as it ships, trained for one epoch: speed does not depend on what it learned."""
    flights = load_spec(Path(__file__).resolve().parents[1] / "include" / "use_cases" / "flights.yaml")
    teacher = flights.training.teacher.model_copy(update={"epochs": 1, "k": 2})
    student = flights.training.student.model_copy(update={"epochs": 1})
    training = flights.training.model_copy(update={"teacher": teacher, "student": student})
    return flights.model_copy(update={"training": training})


def _rows(spec: UseCase, count: int, generator: np.random.Generator) -> pl.DataFrame:
    numeric = {name: generator.normal(size=count).astype(np.float32) for name in spec.features.numeric}
    words = [f"w{index:02d}" for index in range(30)]
    categorical = {name: generator.choice(words, count) for name in spec.features.categorical}
    label = (sum(list(numeric.values())[:3]) + generator.normal(size=count) > 1).astype(np.float32)
    return pl.DataFrame({**numeric, **categorical, "label": label})


def measure() -> list[Result]:
    """Rows a second, the best of three."""
    import lightgbm
    import onnxruntime

    from pipelines.training import entry

    spec = _spec()
    generator = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        data, out = Path(folder) / "data", Path(folder) / "out"
        data.mkdir()
        for part, count in (("train", _TRAIN), ("validation", 4000), ("holdout", 4000)):
            _rows(spec, count, generator).write_parquet(data / f"{part}.parquet")
        entry.run(Job(spec=spec, data=data, out=out, threads=usable_cores()), lambda _: None)
        train = pl.read_parquet(data / "train.parquet")
        rows = _rows(spec, _ROWS, generator)
        engine = Engine(out, tile_rows=spec.scoring.tile_rows)

        def matrix(frame: pl.DataFrame) -> np.ndarray:
            codes = [pl.col(name).cast(pl.Enum(sorted(train[name].unique()))) for name in spec.features.categorical]
            coded = frame.select(*spec.features.numeric, *(code.to_physical().cast(pl.Float32) for code in codes))
            return coded.to_numpy()

        peer = lightgbm.train(
            {"objective": "binary", "num_leaves": 63, "verbose": -1, "num_threads": usable_cores()},
            lightgbm.Dataset(matrix(train), train["label"].to_numpy()),
            num_boost_round=200,
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        fp32 = onnxruntime.InferenceSession(str(out / "student_fp32.onnx"), options)
        feeds = {name: rows[name].to_numpy() for name in spec.features.numeric}
        feeds |= {name: rows[name].to_numpy().astype(object) for name in spec.features.categorical}
        ours = _ROWS / seconds(lambda: engine.score(rows))
        boosted = _ROWS / seconds(lambda: peer.predict(matrix(rows)), repeats=1)
        plain = _ROWS / seconds(lambda: fp32.run(["score"], feeds))
    size = f"{_ROWS:,} rows, {len(spec.features.numeric)} numeric + {len(spec.features.categorical)} text features"
    return [
        Result(
            name="score_int8_vs_lightgbm",
            ours=ours,
            peer=boosted,
            unit="rows/s",
            goal=10,
            note=f"raw columns in, text encoded inside the graph, {size}; peer: LightGBM 200 x 63 leaves",
        ),
        Result(
            name="score_int8_vs_fp32_one_batch",
            ours=ours,
            peer=plain,
            unit="rows/s",
            goal=None,
            note=f"the same; peer: the fp32 student in ONNX Runtime, all rows in one batch, {size}",
        ),
    ]
