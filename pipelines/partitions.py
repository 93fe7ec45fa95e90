"""Partition keys: a date, or an hour, in UTC. Pure functions; nothing here reads the clock."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Literal

from pipelines.errors import SpecError, explain

Granularity = Literal["day", "hour"]

_FORMATS: dict[Granularity, str] = {"day": "%Y-%m-%d", "hour": "%Y-%m-%dT%H"}
_SHAPES: dict[Granularity, re.Pattern[str]] = {
    "day": re.compile(r"\d{4}-\d{2}-\d{2}"),
    "hour": re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}"),
}
#: Crons of which each tick stands for one partition: minute and hour of the day, or minute of the hour.
_CRONS: dict[Granularity, tuple[re.Pattern[str], str]] = {
    "day": (re.compile(r"(?P<minute>\d{1,2}) (?P<hour>\d{1,2}) \* \* \*"), "one time a day, such as '0 2 * * *'"),
    "hour": (re.compile(r"(?P<minute>\d{1,2})(?P<hour>) \* \* \* \*"), "one time an hour, such as '10 * * * *'"),
}
_STEPS: dict[Granularity, timedelta] = {"day": timedelta(days=1), "hour": timedelta(hours=1)}


def key_format(granularity: Granularity) -> str:
    """The strftime format of a key."""
    return _FORMATS[granularity]


def start(key: str, granularity: Granularity) -> datetime:
    """The first instant of a partition, in UTC.

    Raises:
        SpecError: the key is not of the granularity's form, or no such date exists.
    """
    if _SHAPES[granularity].fullmatch(key):
        try:
            return datetime.strptime(key, _FORMATS[granularity]).replace(tzinfo=UTC)
        except ValueError:
            pass
    example = "2013-09-01" if granularity == "day" else "2013-09-01T05"
    raise SpecError(explain("partition", f"{key!r} is not a {granularity} key", allowed=f"keys like {example} (UTC)"))


def end(key: str, granularity: Granularity) -> datetime:
    """The first instant after a partition, in UTC."""
    return start(key, granularity) + _STEPS[granularity]


def of(instant: datetime, granularity: Granularity) -> str:
    """The key of the partition that holds an instant (aware datetimes only)."""
    if instant.tzinfo is None:
        raise SpecError(explain("partition", f"{instant} has no time zone", allowed="aware datetimes"))
    return instant.astimezone(UTC).strftime(_FORMATS[granularity])


def shift(key: str, by: int, granularity: Granularity) -> str:
    """The key `by` partitions later (earlier when negative).

    >>> shift("2013-03-01", -1, "day")
    '2013-02-28'
    """
    return of(start(key, granularity) + by * _STEPS[granularity], granularity)


def tick(key: str, cron: str, granularity: Granularity) -> datetime:
    """When the run of a partition is due: the cron's first tick after its end, in UTC.

    >>> tick("2013-03-10", "30 2 * * *", "day").isoformat()
    '2013-03-11T02:30:00+00:00'
    >>> tick("2013-03-10T22", "5 * * * *", "hour").isoformat()
    '2013-03-10T23:05:00+00:00'

    Raises:
        SpecError: the cron's ticks are not one a partition, or the key is not of the granularity's form.
    """
    shape, allowed = _CRONS[granularity]
    found = shape.fullmatch(cron)
    minute, hour = (int(found["minute"]), int(found["hour"] or 0)) if found else (60, 0)
    if minute > 59 or hour > 23:
        raise SpecError(explain("schedule", f"{cron!r} is not one tick a partition", allowed=allowed))
    return end(key, granularity) + timedelta(hours=hour, minutes=minute)


def span(first: str, last: str, granularity: Granularity) -> list[str]:
    """Every key from `first` to `last`, both included.

    Raises:
        SpecError: a malformed key, or `last` before `first`.
    """
    low, high = start(first, granularity), start(last, granularity)
    if high < low:
        raise SpecError(
            explain("partition range", f"{first}..{last} runs backwards", remedy="give the earlier key first")
        )
    count = int((high - low) / _STEPS[granularity]) + 1
    return [of(low + i * _STEPS[granularity], granularity) for i in range(count)]
