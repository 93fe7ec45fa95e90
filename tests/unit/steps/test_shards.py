"""However a plan is cut into shards, what is staged is byte for byte what one process stages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import parquet
from pipelines.backends.files import Files
from pipelines.counts import NOTE
from pipelines.errors import IntegrityError
from pipelines.ports import STATIC
from pipelines.records import Counts, Piece, Shard
from pipelines.steps import merging, scorer, scoring
from pipelines.steps.features import build_features
from tests.cases import Case
from tests.contracts.stores import RUN
from tests.unit.steps.sharded import Sharded, digests, made_up, open_store, publish, seal
from tests.unit.training.conftest import TASKS, make_spec, write

#: Rows of a row group in these tests, so that several of them are few rows.
GROUP = 64
#: Partitions by rows: none, one, around one row group, several row groups and a rest.
SIZES = (0, 1, GROUP - 1, GROUP, GROUP + 1, 2 * GROUP, 5 * GROUP + 17)
DAYS = tuple(f"2024-01-{day:02d}" for day in range(1, len(SIZES) + 1))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is cut in the code is cut at a few rows here."""
    monkeypatch.setattr(parquet, "GROUP_ROWS", GROUP)
    monkeypatch.setattr(scorer, "BATCH_ROWS", 50)
    monkeypatch.setattr(merging, "BATCH_ROWS", 50)
    monkeypatch.setattr(scorer, "_TOGETHER", 3)
    monkeypatch.setattr(scorer, "_TOGETHER_ROWS", 100)


@pytest.fixture(scope="module")
def make_toy(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Sharded]:
    """The use case of a task, trained when it is first asked for."""

    @cache
    def of(task: str) -> Sharded:
        root = tmp_path_factory.mktemp(f"shards-{task}")
        spec = make_spec(task, model="lightgbm")
        model = seal(spec, write(root / "data", task), root / "model")
        store = open_store(spec, root)
        frames = {day: made_up(rows, seed) for seed, (day, rows) in enumerate(zip(DAYS, SIZES, strict=True))}
        publish(store, "rows", frames)
        return Sharded(spec=spec, store=store, artifact=root / "model", model=model)

    return of


@pytest.fixture(scope="module", params=TASKS)
def toy(request: pytest.FixtureRequest, make_toy: Callable[[str], Sharded]) -> Sharded:
    return make_toy(request.param)


@pytest.fixture
def binary(make_toy: Callable[[str], Sharded]) -> Sharded:
    """For what does not depend on the task."""
    return make_toy("binary")


@pytest.fixture(scope="module")
def expected(toy: Sharded) -> dict[str, tuple[str, int]]:
    """What one process stages of each partition, alone, with everything in one piece."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "GROUP_ROWS", GROUP)
        patch.setattr("pipelines.scoring.engine.usable_cores", lambda: 1)
        return {day: digests(toy.whole([day]))[day] for day in DAYS}


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    days=st.sets(st.sampled_from(DAYS), min_size=1),
    shard_rows=st.sampled_from((9, GROUP - 1, GROUP, GROUP + 1, 150, 10_000)),
    tile_rows=st.sampled_from((64, 100, 8192)),
    batch=st.sampled_from((7, 50, GROUP, 1000)),
    threads=st.integers(1, 4),
    backwards=st.booleans(),
)
def test_shards_of_any_size_merge_into_the_bytes_of_one_process(
    toy: Sharded,
    expected: dict[str, tuple[str, int]],
    tmp_path: Path,
    days: set[str],
    shard_rows: int,
    tile_rows: int,
    batch: int,
    threads: int,
    backwards: bool,
) -> None:
    wanted = {day: expected[day] for day in sorted(days)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.scoring.engine.usable_cores", lambda: threads)
        patch.setattr(scorer, "BATCH_ROWS", batch)
        options = {"shard_rows": shard_rows, "tile_rows": tile_rows}
        assert digests(toy.whole(sorted(days), **options)) == wanted
        assert digests(toy.shards(sorted(days), tmp_path, backwards=backwards, **options)) == wanted


def test_the_shards_that_are_compared_are_of_every_kind(binary: Sharded) -> None:
    _, resolved = binary.plan(DAYS, shard_rows=GROUP)
    together = [shard for shard in resolved.shards if len(shard.partitions) > 1]
    parts = [shard for shard in resolved.shards if shard.partitions == (DAYS[-1],)]
    assert together
    assert len(parts) == 6
    assert sum(shard.rows or 0 for shard in parts) == SIZES[-1]
    assert {key for shard in resolved.shards for key in shard.partitions} == set(DAYS)


def test_shards_know_the_same_of_unseen_values_and_thresholds_as_one_process(toy: Sharded, tmp_path: Path) -> None:
    spec, resolved = toy.plan(DAYS)
    whole = scoring.score(spec, toy.store, toy, resolved, RUN)  # type: ignore[arg-type]
    cut = toy.cut(DAYS, tmp_path, shard_rows=40)
    assert cut.unseen == whole.unseen
    assert max(cut.unseen[DAYS[-1]].values()) > 0.1
    assert cut.threshold == whole.threshold


def test_merged_files_note_the_counts_of_all_their_rows(binary: Sharded, tmp_path: Path) -> None:
    staged = binary.shards([DAYS[-1]], tmp_path, shard_rows=GROUP)[DAYS[-1]]
    noted = parquet.notes(binary.store.local(staged))
    counts = Counts.model_validate_json(noted[NOTE])
    assert counts.rows == SIZES[-1]
    assert counts.columns["wide"].nulls + sum(counts.columns["wide"].bins) == SIZES[-1]
    assert json.loads(noted["overnight.unknown"])["colour"] > 0


def test_a_shard_that_is_scored_again_replaces_its_file_by_the_same_bytes(binary: Sharded, tmp_path: Path) -> None:
    spec, resolved = binary.plan([DAYS[-1]], shard_rows=GROUP)
    shard = resolved.shards[2]
    first = scoring.score_shard(spec, binary.store, binary.artifact, resolved, shard, tmp_path)
    before = {path: Path(path).read_bytes() for path in first.files.values()}
    assert scoring.score_shard(spec, binary.store, binary.artifact, resolved, shard, tmp_path) == first
    assert {path: Path(path).read_bytes() for path in first.files.values()} == before
    assert sorted(map(str, tmp_path.iterdir())) == sorted(before)


@pytest.mark.parametrize("wrong", ["missing", "twice", "another cut"])
def test_pieces_that_are_not_those_of_the_plan_are_refused(binary: Sharded, tmp_path: Path, wrong: str) -> None:
    spec, resolved = binary.plan([DAYS[-1]], shard_rows=GROUP)
    pieces = [
        scoring.score_shard(spec, binary.store, binary.artifact, resolved, shard, tmp_path)
        for shard in resolved.shards[:2]
    ]
    pieces += [Piece(shard=shard, files={}) for shard in resolved.shards[2:]]
    changed = {
        "missing": pieces[1:],
        "twice": [*pieces, pieces[0]],
        "another cut": [Piece(shard=Shard(partitions=(DAYS[-1],), start=0, rows=7), files={}), *pieces[1:]],
    }
    with pytest.raises(IntegrityError, match="not those of the plan"):
        scoring.stage_pieces(spec, binary.store, binary.artifact, resolved, changed[wrong], RUN)


def test_row_groups_of_their_real_size_are_the_same_bytes_too(
    binary: Sharded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    store = open_store(binary.spec, tmp_path)
    rows = 131_072 + 70_000
    frame = made_up(1000, 5)
    many = pl.concat([frame] * (rows // 1000 + 1)).head(rows)
    many = many.with_columns(pl.int_range(pl.len()).cast(pl.String).alias("id"))
    publish(store, "rows", {DAYS[0]: many, DAYS[1]: many.head(131_072)})
    big = Sharded(spec=binary.spec, store=store, artifact=binary.artifact, model=binary.model)
    whole = digests(big.whole(DAYS[:2]))
    assert digests(big.shards(DAYS[:2], tmp_path / "pieces", shard_rows=60_001)) == whole
    assert {rows for _, rows in whole.values()} == {rows, 131_072}


def test_shards_that_end_with_row_groups_are_copied_not_written_again(
    binary: Sharded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = digests(binary.whole([DAYS[-1]]))
    monkeypatch.setattr(merging, "Writer", None)
    assert digests(binary.shards([DAYS[-1]], tmp_path, shard_rows=2 * GROUP)) == whole


@given(count=st.integers(1, 50 * GROUP), most=st.integers(1, 50 * GROUP))
def test_shards_are_even_no_larger_than_asked_and_end_with_row_groups(count: int, most: int) -> None:
    cut = scoring.shards({"day": count}, most)
    sizes = [count if shard.rows is None else shard.rows for shard in cut]
    assert sum(sizes) == count
    assert max(sizes) <= most
    if len(sizes) > 1 and most >= GROUP:
        assert all(size % GROUP == 0 for size in sizes[:-1])
        assert max(sizes) - (count / len(sizes)) < GROUP
        assert len(sizes) <= -(-count // (most - most % GROUP))


@pytest.fixture(scope="module")
def flights(flights_case: Case, tmp_path_factory: pytest.TempPathFactory) -> Sharded:
    """Real flights of three days, whose features look at the whole partition and at the weather of the day before."""
    root = tmp_path_factory.mktemp("shards-flights")
    training = flights_case.spec.training.model_copy(update={"model": "lightgbm"})
    spec = flights_case.spec.model_copy(update={"training": training})
    store, source = open_store(spec, root), Files(flights_case.landing)
    days = flights_case.keys[1:4]
    for table in ("rows", *spec.context):
        keys = [STATIC] if spec.tables[table].static else list(flights_case.keys[:4])
        publish(store, table, {key: source.read(spec, table, key).frame for key in keys})
    heads = {table: store.head(table) for table in ("rows", *spec.context)}
    features = build_features(spec, store, heads, days).collect()  # type: ignore[arg-type]
    late = pl.Series("label", np.random.default_rng(3).random(features.height) < 0.2).cast(pl.Float32)
    data = root / "data"
    data.mkdir()
    for part in ("train", "validation", "holdout"):
        features.with_columns(late).write_parquet(data / f"{part}.parquet")
    return Sharded(spec=spec, store=store, artifact=root / "model", model=seal(spec, data, root / "model"))


@pytest.mark.parametrize("shard_rows", [97, 300, 1500, 100_000])
def test_a_feature_of_the_whole_partition_is_the_same_in_every_shard(
    flights: Sharded, flights_case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shard_rows: int
) -> None:
    days = flights_case.keys[1:4]
    assert "departures_same_hour" in flights.spec.features.columns
    whole = digests(flights.whole(days))
    monkeypatch.setattr("pipelines.scoring.engine.usable_cores", lambda: 3)
    assert digests(flights.shards(days, tmp_path, shard_rows=shard_rows, tile_rows=64)) == whole


def test_the_shard_files_of_a_partition_are_its_rows_in_order(
    flights: Sharded, flights_case: Case, tmp_path: Path
) -> None:
    day = flights_case.keys[1]
    spec, resolved = flights.plan([day], shard_rows=200)
    files: list[Any] = []
    for shard in resolved.shards:
        files += scoring.score_shard(spec, flights.store, flights.artifact, resolved, shard, tmp_path).files.values()
    staged = flights.whole([day])[day]
    shutil.copyfile(flights.store.local(staged), tmp_path / "whole.parquet")
    assert pl.concat([pl.read_parquet(file) for file in files]).equals(pl.read_parquet(tmp_path / "whole.parquet"))
