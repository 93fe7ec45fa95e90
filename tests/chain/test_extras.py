"""Intervals and reasons on their way to the predictions table: only when asked, the same bytes however it is scored."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.errors import SchemaMismatch
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.spec import Scoring
from tests.cases.champions import AS_OF, DAYS, NAME, write_project
from tests.chain.conftest import score
from tests.contracts.stores import RUN, audit

NIGHTS = DAYS[8:]
EXTRAS = ["low", "high", "reason_1", "reason_1_effect", "reason_2", "reason_2_effect"]
ASKED = {"interval": 0.9, "reasons": 2}


def fill(store: SnapshotStore) -> None:
    """Twelve days of valves and the hours until they stuck, whose spread grows with their wear; some values missing."""
    dice = random.Random(5)
    rows, labels = {}, {}
    for day in DAYS:
        found, hours = [], []
        for n in range(150):
            pressure, wear, site = dice.gauss(0, 1), dice.random(), dice.choice(("north", "south"))
            found.append((f"{day}-{n}", None if n % 13 == 0 else pressure, wear, None if n % 17 == 0 else site))
            hours.append(10 * pressure + 20 * wear + dice.gauss(0, 1 + 5 * wear))
        rows[day] = pl.DataFrame(found, schema=["id", "pressure", "wear", "site"], orient="row")
        labels[day] = rows[day].select("id", pl.Series("hours", hours))
    for table, frames in (("rows", rows), ("labels", labels)):
        staged = store.stage(table, [Draft(partition=day, frame=frame) for day, frame in frames.items()], RUN)
        store.publish(table, staged, [audit(part) for part in staged], RUN)


def opened(root: Path, **scoring: Any) -> Runtime:
    """The case, with what its spec says of scoring."""
    run = RunInfo(run_id="test", dag_id=f"{NAME}_train", code_version="test")
    settings = Settings(project=root / "project", home=root / "var", code_version="test")
    runtime = Runtime.open(NAME, run=run, settings=settings)
    runtime.spec = runtime.spec.model_copy(update={"scoring": Scoring(**scoring)})
    return runtime


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows, and one registered version: trees that were calibrated on the 150 rows of a day."""
    root = tmp_path_factory.mktemp("extras")
    columns = {"id": {"type": "string", "nullable": False}, "hours": {"type": "float"}}
    tables = {"labels": {"path": "labels/{partition}.csv", "key": ["id"], "columns": columns}}
    label = {"column": "hours", "task": "regression", "positive": None}
    gates = {"metric": "rmse", "bound": 1e9, "margin_over_champion": -1e9}
    write_project(root / "project", tables=tables, label=label, gates=gates)
    runtime = opened(root)
    fill(runtime.store)
    trained = runtime.train(runtime.build_training_set(AS_OF))
    evaluation = runtime.evaluate(trained)
    runtime.register(trained, evaluation, runtime.gate(trained, evaluation))
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    """A copy of what is published; the version stays where it is."""
    shutil.copytree(made / "project", tmp_path / "project")
    shutil.copytree(made / "var", tmp_path / "var", ignore=shutil.ignore_patterns("artifacts", "checkpoints"))
    return tmp_path


def predictions(runtime: Runtime, night: str) -> pl.DataFrame:
    head = runtime.store.head("predictions")
    assert head is not None
    return runtime.store.scan(head, [night]).collect()


def digests(runtime: Runtime, night: str) -> str:
    head = runtime.store.head("predictions")
    assert head is not None
    return runtime.store.partitions(head)[night].digest


def test_a_table_becomes_wider_when_the_spec_asks_and_keeps_its_columns_when_it_no_longer_does(root: Path) -> None:
    plain, asked = opened(root), opened(root, **ASKED)
    assert score(plain, [NIGHTS[0]], 1) == ("published",)
    assert not set(EXTRAS) & set(predictions(plain, NIGHTS[0]).columns), "only if the spec asks"
    (scores,) = plain.plan_scores([NIGHTS[1]], 1)
    bare = pl.read_parquet(plain.score_shard(scores, scores.shards[0]).files[NIGHTS[1]])

    assert score(asked, [NIGHTS[1]], 1) == ("published",)
    wide = predictions(asked, NIGHTS[1])
    assert [wide[name].dtype for name in EXTRAS] == [pl.Float32, pl.Float32, *[pl.String, pl.Float32] * 2]
    assert wide.select(bare.columns).equals(bare), "no score is another one for that"
    assert wide.select((pl.col("low") <= pl.col("score")) & (pl.col("score") <= pl.col("high"))).to_series().all()
    assert set(wide["reason_1"]) <= {"pressure", "wear", "site"}
    assert wide["reason_1"].value_counts(sort=True).item(0, 0) == "pressure"
    labels = asked.store.scan(asked.store.head("labels"), [NIGHTS[1]]).collect()  # type: ignore[arg-type]
    held = wide.join(labels, on="id").select(pl.col("hours").is_between(pl.col("low"), pl.col("high"))).to_series()
    assert 0.75 < held.mean() <= 1, "150 rows by the residuals of 150"  # type: ignore[operator]
    assert predictions(asked, NIGHTS[0]).select(EXTRAS).null_count().row(0) == (150,) * 6

    assert score(plain, [NIGHTS[2]], 1) == ("published",)
    late = predictions(plain, NIGHTS[2])
    assert late.columns == wide.columns
    assert late.select(EXTRAS).null_count().row(0) == (150,) * 6
    for runtime, night in ((plain, NIGHTS[0]), (asked, NIGHTS[1]), (plain, NIGHTS[2])):
        done = runtime.replay(night)
        assert done.outcome == "identical", (night, done.differences)
        assert done.replayed == digests(runtime, night)


@pytest.mark.parametrize("cut", [{"tile_rows": 64}, {"shard_rows": 40}, {"shard_rows": 300, "tile_rows": 100}])
def test_shards_and_tiles_of_any_size_stage_the_same_bytes(root: Path, cut: dict[str, int]) -> None:
    whole, other = opened(root, **ASKED), opened(root, **ASKED, **cut)
    nights = list(NIGHTS[1:3])
    expected = {part.partition: part.digest for part in whole.score(nights, 1).staged}
    (resolved,) = other.plan_scores(nights, 1)
    scored = other.stage_pieces(resolved, [other.score_shard(resolved, shard) for shard in resolved.shards])
    assert {part.partition: part.digest for part in scored.staged} == expected
    assert other.audit_scores(scored).validated.reports[0].passed


def test_a_level_that_the_model_was_not_calibrated_for_is_refused_before_anything_is_scored(root: Path) -> None:
    runtime = opened(root, interval=0.99)
    with pytest.raises(SchemaMismatch, match=r"0\.99.*it has 0\.5, 0\.8, 0\.9, 0\.95.*retrain, with 199"):
        runtime.score([NIGHTS[0]], 1)
    assert runtime.store.head("predictions") is None


def test_one_extra_may_take_the_others_place_and_the_table_has_both(root: Path) -> None:
    explained, bounded = opened(root, reasons=1), opened(root, interval=0.5)
    assert score(explained, [NIGHTS[0]], 1) == score(bounded, [NIGHTS[1]], 1) == ("published",)
    assert score(opened(root, **ASKED), [NIGHTS[2]], 1) == score(explained, [NIGHTS[3]], 1) == ("published",)
    columns = [name for name in predictions(explained, NIGHTS[0]).columns if name in EXTRAS]
    assert sorted(columns) == sorted(EXTRAS)
    first, second, third, last = (predictions(explained, night).select(EXTRAS[:4]).row(0) for night in NIGHTS)
    assert [value is None for value in first] == [value is None for value in last] == [True, True, False, False]
    assert [value is None for value in second] == [False, False, True, True]
    assert None not in third
    for runtime, night in ((explained, NIGHTS[0]), (bounded, NIGHTS[1]), (explained, NIGHTS[3])):
        assert runtime.replay(night).outcome == "identical", night
