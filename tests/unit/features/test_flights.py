"""The features of flights: the same for a day alone as within a range, and never newer than the prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from pipelines import features
from pipelines.backends.files import Files
from pipelines.features.flights import build
from pipelines.partitions import shift
from pipelines.ports import STATIC
from pipelines.spec import UseCase
from tests.cases import Case

NOON = datetime(2013, 7, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
WEATHER = (
    *("temperature", "dew_point", "humidity", "wind_speed", "wind_gust"),
    *("precipitation", "pressure", "visibility"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tables:
    """Everything that the landing zone of the case holds."""

    rows: pl.DataFrame
    weather: pl.DataFrame
    planes: pl.DataFrame
    spec: UseCase

    def of(self, rows: Sequence[str], weather: Sequence[str]) -> pl.DataFrame:
        """The features of some partitions of rows, given some partitions of weather."""
        context = {
            "weather": self.weather.filter(pl.col("partition").is_in(weather)).drop("partition").lazy(),
            "planes": self.planes.lazy(),
        }
        chosen = self.rows.filter(pl.col("partition").is_in(rows)).lazy()
        return build(chosen, context, event_time="scheduled_departure", lead=self.spec.features.lead).collect()


@pytest.fixture(scope="module")
def tables(flights_case: Case) -> Tables:
    """Three weeks as one frame a table."""
    source, spec = Files(flights_case.landing), flights_case.spec

    def whole(table: str) -> pl.DataFrame:
        return pl.concat(
            source.read(spec, table, key).frame.with_columns(partition=pl.lit(key)) for key in flights_case.keys
        )

    planes = source.read(spec, "planes", STATIC).frame
    return Tables(rows=whole("rows"), weather=whole("weather"), planes=planes, spec=spec)


def flights(*departures: datetime, origin: str = "EWR") -> pl.LazyFrame:
    """Scheduled flights of two hours."""
    return pl.LazyFrame(
        {
            "flight_id": [f"XX{i}" for i in range(len(departures))],
            "scheduled_departure": departures,
            "scheduled_arrival": [at + 2 * HOUR for at in departures],
            "carrier": "XX",
            "tailnum": "N1",
            "origin": origin,
            "dest": "IAH",
            "distance": 1400.0,
        },
        schema_overrides={
            "scheduled_departure": pl.Datetime("us", "UTC"),
            "scheduled_arrival": pl.Datetime("us", "UTC"),
        },
    )


def observed(*at: datetime, origin: str = "EWR", first: float = 50.0) -> pl.LazyFrame:
    """Observations that differ in every value."""
    values = [first + i for i in range(len(at))]
    return pl.LazyFrame(
        {"origin": [origin] * len(at), "observed_at": at, **dict.fromkeys(WEATHER, values)},
        schema={"origin": pl.String, "observed_at": pl.Datetime("us", "UTC"), **dict.fromkeys(WEATHER, pl.Float64)},
    )


PLANES = pl.LazyFrame({"tailnum": ["N1"], "year": [2003], "seats": [150], "manufacturer": ["AIRBUS INDUSTRIE"]})


def built(rows: pl.LazyFrame, weather: pl.LazyFrame, lead: timedelta = HOUR) -> pl.DataFrame:
    """The features of made-up flights."""
    return build(rows, {"weather": weather, "planes": PLANES}, event_time="scheduled_departure", lead=lead).collect()


def test_every_row_and_column_stays_in_its_order_and_every_feature_is_there(
    tables: Tables, flights_spec: UseCase
) -> None:
    keys = sorted(tables.rows["partition"].unique())
    mixed = tables.rows.sample(fraction=1.0, shuffle=True, seed=3)
    out = Tables(rows=mixed, weather=tables.weather, planes=tables.planes, spec=tables.spec).of(keys, keys)
    assert_frame_equal(out.select(mixed.columns), mixed)
    for name in flights_spec.features.numeric:
        assert out.schema[name] == pl.Float64, name
    for name in flights_spec.features.categorical:
        assert out.schema[name] == pl.String, name
    assert not [name for name in out.columns if name.startswith("__")]


def test_a_day_alone_gets_the_features_that_it_gets_within_the_range(tables: Tables) -> None:
    keys = sorted(tables.rows["partition"].unique())
    together = tables.of(keys, keys)
    assert together.select(WEATHER).null_count().min_horizontal().item() < together.height / 10
    for day in keys:
        before = shift(day, -tables.spec.features.lookback, "day")
        alone = tables.of([day], [before, day])
        assert_frame_equal(alone, together.filter(pl.col("partition") == day))


def test_the_order_of_the_rows_changes_no_feature(tables: Tables) -> None:
    keys = sorted(tables.rows["partition"].unique())[:5]
    straight = tables.of(keys, keys)
    turned = Tables(
        rows=tables.rows.reverse(), weather=tables.weather.reverse(), planes=tables.planes.reverse(), spec=tables.spec
    )
    assert_frame_equal(turned.of(keys, keys).sort("flight_id"), straight.sort("flight_id"))


def test_observations_newer_than_the_prediction_change_no_feature(tables: Tables) -> None:
    days = sorted(tables.rows["partition"].unique())[5:7]
    rows = tables.rows.filter(pl.col("partition") == days[1])
    context = tables.weather.filter(pl.col("partition").is_in(days)).drop("partition")
    lead = tables.spec.features.lead
    changed = 0
    for hour in range(0, 24, 5):
        departure = datetime.fromisoformat(f"{days[1]}T{hour:02}:30:00+00:00")
        due = rows.filter(pl.col("scheduled_departure") <= departure)
        newer = pl.col("observed_at") > departure - lead
        later = context.with_columns(
            pl.when(newer).then(pl.col(name) + 7).otherwise(pl.col(name)).alias(name) for name in WEATHER
        )
        changed += context.filter(newer).height
        results = [
            build(
                due.lazy(),
                {"weather": weather.lazy(), "planes": tables.planes.lazy()},
                event_time="scheduled_departure",
                lead=lead,
            ).collect()
            for weather in (context, later, context.remove(newer))
        ]
        assert_frame_equal(results[0], results[1])
        assert_frame_equal(results[0], results[2])
    assert changed > 0


@pytest.mark.parametrize(
    ("offset", "expected"),
    [(timedelta(microseconds=-1), 51.0), (timedelta(0), 51.0), (timedelta(microseconds=1), 50.0)],
)
def test_a_microsecond_decides_whether_an_observation_is_known(offset: timedelta, expected: float) -> None:
    weather = observed(NOON - 3 * HOUR, NOON - HOUR + offset)
    assert built(flights(NOON), weather)["temperature"].to_list() == [expected]


@pytest.mark.parametrize(("age", "known"), [(timedelta(0), True), (timedelta(microseconds=1), False)])
def test_an_observation_over_six_hours_old_says_nothing(age: timedelta, known: bool) -> None:
    out = built(flights(NOON), observed(NOON - HOUR - timedelta(hours=6) - age))
    assert all((out[name][0] is not None) is known for name in WEATHER)


def test_weather_is_of_the_flights_own_airport() -> None:
    weather = pl.concat([observed(NOON - 2 * HOUR), observed(NOON - HOUR, origin="JFK", first=90.0)])
    assert built(flights(NOON), weather)["temperature"].to_list() == [50.0]
    assert built(flights(NOON, origin="JFK"), weather)["temperature"].to_list() == [90.0]


def test_without_any_weather_the_features_are_null() -> None:
    out = built(flights(NOON), observed())
    assert out.select(WEATHER).null_count().row(0) == (1,) * len(WEATHER)


def test_a_wind_that_cannot_be_is_unknown() -> None:
    out = built(flights(NOON), observed(NOON - HOUR, first=1048.0))
    assert (out["wind_speed"][0], out["wind_gust"][0]) == (None, None)
    assert out["pressure"][0] == 1048.0


def test_the_calendar_is_that_of_new_york_also_when_the_clocks_change() -> None:
    instants = {
        datetime(2013, 1, 2, 4, 30, tzinfo=UTC): (23 * 60 + 30, "Tue"),
        datetime(2013, 3, 10, 6, 59, tzinfo=UTC): (1 * 60 + 59, "Sun"),
        datetime(2013, 3, 10, 7, 0, tzinfo=UTC): (3 * 60, "Sun"),
        datetime(2013, 11, 3, 5, 30, tzinfo=UTC): (1 * 60 + 30, "Sun"),
        datetime(2013, 11, 3, 6, 30, tzinfo=UTC): (1 * 60 + 30, "Sun"),
        datetime(2013, 7, 2, 3, 59, tzinfo=UTC): (23 * 60 + 59, "Mon"),
    }
    out = built(flights(*instants), observed())
    assert list(zip(out["minute_of_day"], out["weekday"], strict=True)) == list(instants.values())
    assert out["scheduled_minutes"].to_list() == [120.0] * len(instants)


def test_departures_are_counted_by_airport_and_utc_hour() -> None:
    rows = pl.concat(
        [
            flights(NOON, NOON + timedelta(minutes=59), NOON + HOUR, NOON - timedelta(microseconds=1)),
            flights(NOON, origin="JFK"),
        ]
    )
    assert built(rows, observed())["departures_same_hour"].to_list() == [2.0, 2.0, 1.0, 1.0, 1.0]


def test_a_planes_age_seats_and_maker_are_joined_and_an_unknown_plane_is_null() -> None:
    known = built(flights(NOON), observed())
    assert known.select("plane_age", "seats", "manufacturer").row(0) == (10.0, 150.0, "AIRBUS")
    for tailnum in ("N2", None):
        stranger = flights(NOON).with_columns(tailnum=pl.lit(tailnum, pl.String))
        out = built(stranger, observed())
        assert out.select("plane_age", "seats", "manufacturer").row(0) == (None, None, None)


def test_no_rows_give_no_rows_with_every_feature(flights_spec: UseCase) -> None:
    out = built(flights(NOON).clear(), observed(NOON))
    assert out.height == 0
    assert set(flights_spec.features.columns) <= set(out.columns)


def test_a_feature_function_is_found_by_name_and_a_wrong_name_lists_those_that_exist() -> None:
    assert features.load("flights") is build
    for name in ("fligths", "../flights", "flights.build", "__init__", ""):
        with pytest.raises(LookupError, match=r"there is no module .* Allowed: .*flights"):
            features.load(name)
