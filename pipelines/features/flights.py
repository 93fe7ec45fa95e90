"""What is known about a flight before it departs: the schedule, the plane, the last weather at its airport."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import polars as pl

#: Schedules, and people's habits, follow the clock at the airports of origin.
_LOCAL = "America/New_York"
#: An older observation says nothing about the weather now. The lead and this together must stay within the lookback
#: of the context tables, or a partition alone would see less than a range.
_STALE = timedelta(hours=6)
#: Miles an hour: no wind at an airport is stronger. On 2013-02-12 Newark reported 1048.
_STRONGEST_WIND = 150.0

_WEATHER = (
    "temperature",
    "dew_point",
    "humidity",
    "wind_speed",
    "wind_gust",
    "precipitation",
    "pressure",
    "visibility",
)
_ROW = "__row"
_AT = "__predicted_at"


def build(rows: pl.LazyFrame, context: Mapping[str, pl.LazyFrame], *, event_time: str, lead: timedelta) -> pl.LazyFrame:
    """Adds the features of flights.

    Args:
        rows: scheduled flights; `event_time` and `scheduled_arrival` are instants in UTC, `distance` is in miles.
        context: `weather` (hourly observations by `origin`, valid from `observed_at` on) and `planes` (by `tailnum`).
        event_time: the scheduled departure.
        lead: how long before the departure the prediction is made; at most 18 hours for a lookback of one day.

    Returns:
        The rows as they came, with numeric features as Float64 and categorical ones as String. Weather is the last
        observation at the origin that is not newer than departure minus `lead`, and null when that is over six hours
        old. `departures_same_hour` counts scheduled departures from the origin in the same UTC hour, so that it never
        reaches over the edge of a partition.
    """
    local = pl.col(event_time).dt.convert_time_zone(_LOCAL)
    schedule = rows.with_row_index(_ROW).with_columns(
        (pl.col(event_time) - lead).alias(_AT),
        distance=pl.col("distance").cast(pl.Float64),
        minute_of_day=(local.dt.hour().cast(pl.Float64) * 60 + local.dt.minute()),
        weekday=local.dt.strftime("%a"),
        scheduled_minutes=(pl.col("scheduled_arrival") - pl.col(event_time)).dt.total_minutes().cast(pl.Float64),
        departures_same_hour=pl.len().over("origin", pl.col(event_time).dt.truncate("1h")).cast(pl.Float64),
    )
    planes = context["planes"].select(
        "tailnum",
        pl.col("seats").cast(pl.Float64),
        pl.col("year").alias("__built"),
        # "AIRBUS INDUSTRIE" and "AIRBUS" are one maker: the first word tells makers apart.
        pl.col("manufacturer").str.split(" ").list.first().alias("manufacturer"),
    )
    weather = context["weather"].select(
        "origin", pl.col("observed_at").alias("__observed_at"), *(pl.col(name).cast(pl.Float64) for name in _WEATHER)
    )
    sane = [
        pl.when(pl.col(name) <= _STRONGEST_WIND).then(pl.col(name)).alias(name) for name in ("wind_speed", "wind_gust")
    ]
    return (
        schedule.join(planes, on="tailnum", how="left", maintain_order="left")
        .with_columns(plane_age=(pl.col(event_time).dt.year() - pl.col("__built")).cast(pl.Float64))
        .sort(_AT)
        .join_asof(
            weather.with_columns(sane).sort("__observed_at"),
            left_on=_AT,
            right_on="__observed_at",
            by="origin",
            strategy="backward",
            tolerance=_STALE,
            check_sortedness=False,  # sorted above; the check does not see through `by`
        )
        .sort(_ROW)
        .drop(_ROW, _AT, "__built", "__observed_at", strict=False)
    )
