"""What a night may bring: columns that nobody expects, no rows, odd rows, hours that a clock skips."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from pipelines.counts import NOTE
from pipelines.errors import QuarantinedError, SchemaMismatch
from pipelines.partitions import of, span
from pipelines.records import Counts
from pipelines.steps.predictions import PREDICTIONS
from tests.cases.champions import NAME, SPEC
from tests.faults.nights import SMALL, Nights, outcome, put, rows

DAY = "2024-06-03"
_BERLIN = ZoneInfo("Europe/Berlin")


def scores(nights: Nights, *days: str) -> pl.DataFrame:
    head = nights.store.head(PREDICTIONS)
    assert head is not None
    return nights.store.scan(head, list(days) or None).collect()


def afresh(nights: Nights, frame: pl.DataFrame) -> None:
    """A table of rows that was begun anew, with these columns."""
    shutil.rmtree(nights.home / "snapshots" / NAME / "rows")
    put(nights.store, DAY, frame)


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda frame: frame.drop("wear"), "there is no 'wear'"),
        (lambda frame: frame.drop("site"), "there is no 'site'"),
        (lambda frame: frame.drop("id"), "there is no 'id'"),
        (lambda frame: frame.with_columns(pl.col("wear").cast(pl.String)), "'wear' is String"),
        (lambda frame: frame.with_columns(wear=pl.lit(datetime(2024, 1, 1, tzinfo=UTC))), "'wear' is Datetime"),
        (lambda frame: frame.with_columns(site=pl.lit(1.5)), "'site' is Float64"),
        (lambda frame: frame.with_columns(site=pl.lit(1)), "'site' is Int"),
    ],
)
def test_a_snapshot_that_lacks_a_column_or_has_it_in_another_type_is_refused_by_its_name(
    change: Any, said: str, shards: bool, nights: Nights
) -> None:
    afresh(nights, change(rows(150)))
    with pytest.raises(SchemaMismatch, match=said):
        nights.night(DAY, shards=shards).act()
    assert nights.store.head(PREDICTIONS) is None
    assert list((nights.home / "snapshots" / NAME / "_staging").glob("predictions/*/*")) == []


def test_a_column_that_the_spec_does_not_name_is_not_read(nights: Nights) -> None:
    put(nights.store, DAY, rows(150))
    assert nights.night(DAY).act() == f"{DAY} published v1"
    before = scores(nights)
    shutil.rmtree(nights.home / "snapshots" / NAME / PREDICTIONS)
    afresh(nights, rows(150).with_columns(weight=pl.lit("heavy")))
    assert nights.night(DAY).act() == f"{DAY} published v1"
    assert scores(nights).drop("snapshot").equals(before.drop("snapshot"))


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ({"numeric": ["pressure"]}, "there is no 'wear'"),
        ({"categorical": []}, "there is no 'site'"),
        ({"numeric": ["pressure", "wear", "height"]}, "the model does not know 'height'"),
        ({"categorical": ["site", "colour"]}, "the model does not know 'colour'"),
        ({"numeric": ["pressure"], "categorical": ["site", "wear"]}, "'wear' is String"),
    ],
)
@pytest.mark.parametrize("shards", [False, True])
def test_a_model_that_has_learned_from_other_features_than_the_spec_names_is_refused(
    features: dict[str, Any], said: str, shards: bool, made_nights: Nights, tmp_path: Path
) -> None:
    table = SPEC["tables"]["rows"]
    columns = {**table["columns"], "height": {"type": "float"}, "colour": {"type": "string"}}
    nights = made_nights.copy(tmp_path, features=features, tables={"rows": {**table, "columns": columns}})
    afresh(nights, rows(150).with_columns(height=pl.lit(1.0), colour=pl.lit("red")))
    with pytest.raises(SchemaMismatch, match=said):
        nights.night(DAY, shards=shards).act()
    assert nights.store.head(PREDICTIONS) is None


@pytest.mark.parametrize("shards", [False, True])
def test_a_partition_without_rows_is_published_without_rows_and_counted(shards: bool, nights: Nights) -> None:
    put(nights.store, DAY, rows(0))
    partitions = [*SMALL, DAY]
    runtime = nights.night().runtime()
    plan = runtime.plan_scores(partitions)[0]
    assert plan.rows_in[DAY] == 0
    pieces = [runtime.score_shard(plan, shard) for shard in plan.shards] if shards else []
    scored = runtime.stage_pieces(plan, pieces) if shards else runtime.score_plan(plan)
    done = {each.partition: each for each in runtime.publish_scores(runtime.audit_scores(scored))}
    assert (done[DAY].state, done[DAY].rows_in, done[DAY].rows_scored) == ("published", 0, 0)
    head = nights.store.head(PREDICTIONS)
    assert head is not None
    counts = Counts.model_validate_json(nights.store.notes(head, [DAY], NOTE)[DAY])
    assert counts.rows == 0
    assert scores(nights, DAY).schema == scores(nights, SMALL[0]).schema
    assert nights.night(DAY).act() == f"{DAY} unchanged v1"


ODD: dict[str, dict[str, Any]] = {
    "nothing": {"pressure": None, "wear": None, "site": None},
    "no number": {"pressure": float("nan"), "wear": float("nan")},
    "infinite": {"pressure": float("inf"), "wear": float("-inf")},
    "too large for float32": {"pressure": 1e300, "wear": -1e300},
    "unseen": {"site": "elsewhere"},
    "empty": {"site": ""},
    "a megabyte": {"site": "x" * 1_000_000},
    "a megabyte of characters": {"site": "\N{AIRPLANE DEPARTURE}" * 1_000_000},
    "NUL": {"site": "north\0"},
    "k" * 1_000_000: {},
}


def odd() -> pl.DataFrame:
    """A night of which ten rows are odd; their keys say how."""
    usual = rows(150)
    strange = [{**usual.row(number, named=True), "id": name, **ODD[name]} for number, name in enumerate(ODD)]
    return pl.concat([usual, pl.DataFrame(strange, schema=usual.schema)])


def test_a_row_of_oddities_is_scored_like_any_and_changes_no_other(nights: Nights) -> None:
    put(nights.store, DAY, odd())
    assert nights.night(DAY).act() == f"{DAY} published v1"
    found = scores(nights)
    assert found.height == 150 + len(ODD)
    assert found.get_column("score").is_finite().all()
    head = nights.store.head(PREDICTIONS)
    assert head is not None
    told = Counts.model_validate_json(nights.store.notes(head, [DAY], NOTE)[DAY])
    assert told.columns["wear"].nulls == 2
    assert told.columns["site"].nulls == 1
    put(nights.store, DAY, rows(150))
    assert nights.night(DAY).act() == f"{DAY} published v1"
    plain = scores(nights).select("id", "score")
    assert plain.equals(found.select("id", "score").head(150))


def test_oddities_are_the_same_bytes_however_they_are_split(
    nights: Nights, made_nights: Nights, tmp_path: Path
) -> None:
    split = made_nights.copy(tmp_path / "split", scoring={"shard_rows": 7, "tile_rows": 64})
    for each, shards in ((nights, False), (split, True)):
        put(each.store, DAY, odd())
        assert each.night(DAY, shards=shards).act() == f"{DAY} published v1"
    assert outcome(nights)["bytes"] == outcome(split)["bytes"]


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (pl.lit("elsewhere").alias("site"), "unseen_share 1.000 of site unseen"),
        (pl.lit(None, pl.Float64).alias("pressure"), None),
    ],
)
def test_a_night_of_unseen_values_is_quarantined_and_one_without_a_number_is_not(
    column: pl.Expr, said: str | None, nights: Nights
) -> None:
    put(nights.store, DAY, rows(150).with_columns(column))
    if said is None:
        assert nights.night(DAY).act() == f"{DAY} published v1"
        return
    with pytest.raises(QuarantinedError, match=said):
        nights.night(DAY).act()
    assert nights.store.head(PREDICTIONS) is None


def test_a_night_of_nothing_but_nulls_has_one_score_and_is_quarantined_where_it_has_a_hundred_rows(
    nights: Nights,
) -> None:
    nothing = [
        pl.lit(None, pl.Float64).alias("pressure"),
        pl.lit(None, pl.Float64).alias("wear"),
        pl.lit(None, pl.String).alias("site"),
    ]
    put(nights.store, DAY, rows(99).with_columns(nothing))
    assert nights.night(DAY).act() == f"{DAY} published v1"
    put(nights.store, DAY, rows(100).with_columns(nothing))
    with pytest.raises(QuarantinedError, match="scores_differ 1 distinct scores"):
        nights.night(DAY).act()
    assert scores(nights).height == 99


@pytest.mark.parametrize(("day", "hours"), [("2024-03-31", 23), ("2024-10-27", 25), ("2024-10-28", 24)])
def test_a_local_day_of_23_or_25_hours_is_that_many_partitions_and_each_row_is_scored_once(
    day: str, hours: int, made_nights: Nights, tmp_path: Path
) -> None:
    nights = made_nights.copy(tmp_path, granularity="hour", schedule="10 * * * *")
    begin = datetime.fromisoformat(day).replace(tzinfo=_BERLIN)
    end = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=_BERLIN)
    last = end.astimezone(UTC) - timedelta(hours=1)
    keys = list(span(of(begin.astimezone(UTC), "hour"), of(last, "hour"), "hour"))
    assert len(keys) == hours
    for key in keys:
        put(nights.store, key, rows(3).with_columns(id=pl.lit(f"{key}-") + pl.col("id")))
    said = nights.night(*keys, at=end).act()
    assert said == ", ".join(f"{key} published v1" for key in keys)
    found = scores(nights)
    assert found.get_column("id").n_unique() == found.height == 3 * hours
    assert found.get_column("scored_at").unique().to_list() == [end.astimezone(UTC)]


def test_an_hour_that_a_clock_shows_twice_is_two_instants_in_scored_at(nights: Nights) -> None:
    at = [datetime(2024, 10, 27, 2, 30, fold=fold, tzinfo=_BERLIN) for fold in (0, 1)]
    for day, when in zip(SMALL, at, strict=False):
        assert nights.night(day, at=when).act() == f"{day} published v1"
    told = [scores(nights, day).get_column("scored_at").unique().to_list() for day in SMALL[:2]]
    assert told == [[datetime(2024, 10, 27, hour, 30, tzinfo=UTC)] for hour in (0, 1)]
