"""Served trees have the student's convention: their codes are entered, and their sums do not depend on the tile."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from pipelines.scoring.engine import Engine
from pipelines.training.entry import run
from pipelines.training.job import Job
from tests.unit.training.conftest import TASKS, make_spec, write

from .conftest import NUMERIC, TEXT


@pytest.fixture(scope="module", params=TASKS)
def trees(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained folder with its data beside it. A regression's score is a sum whose last bits depend on its order."""
    root = tmp_path_factory.mktemp(f"trees-{request.param}")
    data = write(root / "data", request.param)
    run(Job(spec=make_spec(request.param, model="lightgbm"), data=data, out=root / "out", threads=1), lambda _: None)
    return root


def rows(trees: Path) -> pl.DataFrame:
    found = pl.read_parquet(trees / "data" / "holdout.parquet", columns=[*NUMERIC, *TEXT])
    return found.with_columns(
        pl.when(pl.int_range(pl.len()) % 9 == 0).then(pl.lit("unheard of")).otherwise("colour").alias("colour")
    )


def test_trees_are_entered_behind_their_encoders_and_score_as_the_whole_graph(trees: Path, tmp_path: Path) -> None:
    engine = Engine(trees / "out", threads=2, tile_rows=70)
    assert engine.enters_behind_encoders
    told = json.loads((trees / "out" / "model.json").read_text("utf-8"))
    del told["codes"]["tensors"]
    shutil.copy(trees / "out" / "model.onnx", tmp_path)
    (tmp_path / "model.json").write_text(json.dumps(told), "utf-8")
    whole = Engine(tmp_path, threads=1)
    assert not whole.enters_behind_encoders
    assert whole.score(rows(trees)).tobytes() == engine.score(rows(trees)).tobytes()


@pytest.mark.parametrize("tile_rows", [1, 2, 31, 33, 1000])
def test_a_sum_over_trees_is_the_same_bytes_in_any_tile(trees: Path, tile_rows: int) -> None:
    few = rows(trees).head(200)
    expected = Engine(trees / "out", threads=1).score(rows(trees))[:200]
    assert Engine(trees / "out", threads=3, tile_rows=tile_rows).score(few).tobytes() == expected.tobytes()
