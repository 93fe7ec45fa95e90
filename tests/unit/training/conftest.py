"""Small training sets with something to learn, one for each task, and one trained artifact of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.spec import UseCase
from pipelines.training.entry import run
from pipelines.training.job import Job

TASKS = ("binary", "multiclass", "regression")
ROWS = {"train": 1500, "validation": 300, "holdout": 400}
Columns = dict[str, Any]


def make_spec(task: str, metric: str | None = None, **training: Any) -> UseCase:
    """A use case with three numeric and two categorical features, and a network that trains in a second."""
    label: dict[str, Any] = {"column": "outcome", "task": task}
    if task == "binary":
        label["positive"] = {"above": 0}
    if task == "multiclass":
        label["classes"] = ["low", "middle", "high"]
    metric = metric or {"binary": "auc", "multiclass": "accuracy", "regression": "rmse"}[task]
    rows = {
        "path": "rows/{partition}.csv",
        "key": ["id"],
        "columns": {
            "id": {"type": "string", "nullable": False},
            **{name: {"type": "float"} for name in ("wide", "narrow", "gaps")},
            **{name: {"type": "string"} for name in ("colour", "shape")},
            "outcome": {"type": "float"},
        },
    }
    return UseCase.model_validate(
        {
            "name": f"toy_{task}",
            "title": "Toy",
            "description": "A small table.",
            "owner": "tests",
            "schedule": "0 2 * * *",
            "monitor_schedule": "0 6 * * *",
            "tables": {"rows": rows, "labels": rows},
            "label": label,
            "features": {"numeric": ["wide", "narrow", "gaps"], "categorical": ["colour", "shape"]},
            "training": {
                "teacher": {
                    "k": 2,
                    "width": 32,
                    "depth": 1,
                    "epochs": 6,
                    "batch_rows": 64,
                    "bins": 8,
                    "learning_rate": 0.01,
                },
                "student": {"widths": [32, 16], "epochs": 8, "batch_rows": 64, "learning_rate": 0.01},
                "calibration_rows": 512,
                **training,
            },
            "gates": {"metric": metric, "bound": 0.5},
        }
    )


def make_columns(task: str, rows: int, seed: int) -> Columns:
    """Columns with nulls, a far tail, a rare category, and a label that depends on them."""
    rng = np.random.default_rng(seed)
    wide, narrow, gaps = rng.lognormal(3, 1.5, rows), rng.normal(0, 0.01, rows), rng.normal(5, 1, rows)
    colour = rng.choice(["red", "green", "blue"], rows)
    signal = (
        np.log(wide) - 3 + 80 * narrow + (gaps - 5) + np.where(colour == "red", 1.5, -0.7) + rng.normal(0, 0.7, rows)
    )
    shape = [None if i % 11 == 0 else "rare" if i % 400 == 1 else "round" if i % 2 else "square" for i in range(rows)]
    label = {
        "binary": (signal > 0).astype(float),
        "multiclass": np.digitize(signal, [-1.0, 1.0]).astype(float),
        "regression": 40 + 25 * signal,
    }[task]
    return {
        "id": [str(i) for i in range(rows)],
        "partition": ["2024-01-01"] * rows,
        "wide": wide,
        "narrow": narrow,
        "gaps": [None if i % 7 == 0 else value for i, value in enumerate(gaps)],
        "colour": list(colour),
        "shape": shape,
        "label": label,
    }


def write(folder: Path, task: str, **changed: Callable[[Columns], Columns]) -> Path:
    """Writes the three files; `train=...` and so on change that file's columns first."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (part, rows) in enumerate(ROWS.items()):
        columns = changed.get(part, lambda same: same)(make_columns(task, rows, seed))
        pq.write_table(pa.table(columns), folder / f"{part}.parquet")
    return folder


class Trained:
    """One finished training."""

    def __init__(self, task: str, spec: UseCase, data: Path, out: Path, progress: list[dict[str, float]]) -> None:
        self.task, self.spec, self.data, self.out, self.progress = task, spec, data, out, progress


@pytest.fixture(scope="package")
def train_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Trained]:
    """The artifact of a task, trained when it is first asked for."""

    @cache
    def of(task: str) -> Trained:
        root = tmp_path_factory.mktemp(task)
        spec, data = make_spec(task), write(root / "data", task)
        progress: list[dict[str, float]] = []
        run(Job(spec=spec, data=data, out=root / "out", threads=1), lambda values: progress.append(dict(values)))
        return Trained(task, spec, data, root / "out", progress)

    return of


@pytest.fixture(params=TASKS)
def trained(request: pytest.FixtureRequest, train_once: Callable[[str], Trained]) -> Trained:
    """An artifact of each task."""
    return train_once(request.param)


@pytest.fixture
def binary(train_once: Callable[[str], Trained]) -> Trained:
    """The binary artifact, for what does not depend on the task."""
    return train_once("binary")
