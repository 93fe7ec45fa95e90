"""A wide use case for the scoring benchmarks: 32 numbers, 8 texts and a text key, with a champion of its own.

Everything is real: history is published to Delta Lake, the student is trained, signed, registered in MLflow and
promoted, and a night's rows are one published partition. Only what it learns is of no interest.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks.harness import publish
from pipelines.parquet import Writer
from pipelines.partitions import span
from pipelines.ports import Draft
from pipelines.records import RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings

NAME = "wide"
NUMBERS, TEXTS = tuple(f"n{index:02d}" for index in range(32)), tuple(f"t{index}" for index in range(8))
WORDS = tuple(f"w{index:02d}" for index in range(30))
HISTORY = tuple(span("2024-05-01", "2024-05-12", "day"))
_HISTORY_ROWS = 2000
#: Rows that are made at once.
_PIECE = 250_000
#: When the benchmark's runs were due.
AT = datetime(2024, 6, 1, tzinfo=UTC)

_OPEN_GATES: dict[str, Any] = {
    "metric": "auc",
    "bound": 0.5,
    "margin_over_champion": -1.0,
    "min_rows": 10,
    "resamples": 100,
    "max_slice_loss": 1.0,
    "max_calibration_error": 1.0,
    "max_loss_to_lightgbm": 1.0,
    "max_loss_to_fp32": 1.0,
    "max_single_feature": 1.0,
    "sanity": {"max_collapse": 1.0, "max_same": 1.0, "max_feature_share": 1.0, "min_distinct": 1},
}


def _spec() -> dict[str, Any]:
    """The student is the default one, 128 and 64 wide; its teacher is as small as can be."""
    columns = {name: {"type": "float"} for name in NUMBERS} | {name: {"type": "string"} for name in TEXTS}
    key = {"id": {"type": "string", "nullable": False}}
    return {
        "name": NAME,
        "title": "Wide",
        "description": "Forty made-up columns.",
        "owner": "benchmarks",
        "schedule": "0 2 * * *",
        "monitor_schedule": "0 6 * * *",
        "tables": {
            "rows": {"path": "rows/{partition}.csv", "columns": key | columns, "key": ["id"]},
            "labels": {
                "path": "labels/{partition}.csv",
                "columns": key | {"label": {"type": "bool"}},
                "key": ["id"],
            },
        },
        "label": {"column": "label", "task": "binary", "positive": {"equals": True}, "maturity": 1},
        "features": {"numeric": list(NUMBERS), "categorical": list(TEXTS)},
        "training": {
            "teacher": {"k": 2, "width": 32, "depth": 1, "epochs": 1},
            "student": {"epochs": 2},
            "validation": 1,
            "holdout": 2,
        },
        "gates": _OPEN_GATES,
    }


def frame(rows: int, seed: int, first: int = 0) -> pl.DataFrame:
    """Rows in which a hundredth of each number is missing; the same every time.

    Args:
        first: number of the first key.
    """
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((len(NUMBERS), rows))
    values[rng.random(values.shape, np.float32) < 0.01] = np.nan
    words = pl.Series(WORDS)
    return pl.DataFrame(
        {
            "id": pl.int_range(first, first + rows, eager=True).cast(pl.String).str.zfill(12),
            **{name: pl.Series(column).fill_nan(None) for name, column in zip(NUMBERS, values, strict=True)},
            **{name: words.gather(rng.integers(0, len(WORDS), rows)) for name in TEXTS},
        }
    )


def pieces(rows: int, seed: int) -> Iterator[pl.DataFrame]:
    """The same in pieces, for partitions that are larger than they should be held."""
    for number, start in enumerate(range(0, rows, _PIECE)):
        yield frame(min(_PIECE, rows - start), seed * 1_000_003 + number, start)


def publish_rows(runtime: Runtime, partition: str, rows: int, seed: int = 7) -> None:
    """Publishes one partition, made and written in pieces."""

    def write(path: Path) -> int:
        made = pieces(rows, seed)
        first = next(made)
        with Writer(path, first.schema, TEXTS) as file:
            file.write(first)
            for piece in made:
                file.write(piece)
            return file.close({})

    publish(runtime.store, Draft(partition=partition, write=write))


def runtime(root: Path, run: str = "bench") -> Runtime:
    """The use case under a folder that `make` has filled."""
    settings = Settings(project=root / "project", home=root / "var", code_version="bench")
    return Runtime.open(NAME, run=RunInfo(run_id=run, dag_id="bench", code_version="bench", at=AT), settings=settings)


def make(root: Path) -> Runtime:
    """History and a champion."""
    from pipelines.policies.gates import evaluate_gates

    path = root / "project" / "include" / "use_cases" / f"{NAME}.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(_spec()), "utf-8")  # JSON is YAML
    made = runtime(root)
    rows = {day: frame(_HISTORY_ROWS, 100 + number) for number, day in enumerate(HISTORY)}
    publish(made.store, *(Draft(partition=day, frame=part) for day, part in rows.items()))
    told = {day: part.select("id", label=(_signal(part) > 0.5)) for day, part in rows.items()}
    publish(made.store, *(Draft(partition=day, frame=part) for day, part in told.items()), table="labels")
    as_of = HISTORY[-1]
    trained = made.train(made.build_training_set(as_of))
    evaluation = made.evaluate(trained)
    report = evaluate_gates(evaluation, made.spec)
    assert report.passed, report.reason
    model = made.register(trained, evaluation, report)
    made.promote(model, evaluation, report, "benchmarks", as_of)
    return runtime(root)


def _signal(rows: pl.DataFrame) -> pl.Series:
    noise = np.random.default_rng(3).standard_normal(rows.height)
    found = rows.select(pl.sum_horizontal(pl.col(NUMBERS[:3]).fill_null(0)) + (pl.col(TEXTS[0]) > WORDS[15]))
    return found.to_series() + noise


def forget_predictions(root: Path) -> None:
    """Takes the predictions away, so that the same night can be scored again."""
    shutil.rmtree(root / "var" / "snapshots" / NAME / "predictions", ignore_errors=True)


def data_file(root: Path, partition: str, table: str = "rows") -> Path:
    """The one file of a published partition."""
    (found,) = (root / "var" / "snapshots" / NAME / table / f"partition={partition}").glob("*.parquet")
    return found
