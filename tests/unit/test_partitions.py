"""Partition keys: dates and hours in UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import pairwise
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import SpecError
from pipelines.partitions import Granularity, end, key_format, of, shift, span, start

GRANULARITIES = get_args(Granularity)
STEP = {"day": timedelta(days=1), "hour": timedelta(hours=1)}
#: Away from the first and the last year, where shifting would leave the calendar.
INSTANTS = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.timezones())  # noqa: DTZ001


@given(instant=INSTANTS, granularity=st.sampled_from(GRANULARITIES))
def test_an_instant_lies_in_the_partition_of_its_key(instant: datetime, granularity: Granularity) -> None:
    key = of(instant, granularity)
    assert start(key, granularity) <= instant < end(key, granularity)
    assert end(key, granularity) - start(key, granularity) == STEP[granularity]


@given(instant=INSTANTS, by=st.integers(-5000, 5000), granularity=st.sampled_from(GRANULARITIES))
def test_shifting_there_and_back_changes_nothing(instant: datetime, by: int, granularity: Granularity) -> None:
    key = of(instant, granularity)
    assert shift(shift(key, by, granularity), -by, granularity) == key


@given(instant=INSTANTS, count=st.integers(1, 60), granularity=st.sampled_from(GRANULARITIES))
def test_a_span_has_every_key_once_in_order(instant: datetime, count: int, granularity: Granularity) -> None:
    first = of(instant, granularity)
    keys = span(first, shift(first, count - 1, granularity), granularity)
    assert keys == sorted(set(keys))
    assert len(keys) == count
    assert all(shift(a, 1, granularity) == b for a, b in pairwise(keys))


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_a_microsecond_decides_the_partition(granularity: Granularity) -> None:
    edge = datetime(2013, 3, 1, tzinfo=UTC)
    before = edge - timedelta(microseconds=1)
    assert of(edge, granularity) == shift(of(before, granularity), 1, granularity)
    assert end(of(before, granularity), granularity) == edge


def test_leap_days_and_daylight_saving_change_nothing_in_utc() -> None:
    assert span("2024-02-28", "2024-03-01", "day") == ["2024-02-28", "2024-02-29", "2024-03-01"]
    assert span("2023-02-28", "2023-03-01", "day") == ["2023-02-28", "2023-03-01"]
    for day in ("2013-03-10", "2013-11-03"):
        assert len(span(f"{day}T00", f"{day}T23", "hour")) == 24


def test_a_key_is_of_utc_whatever_the_zone_of_the_instant() -> None:
    late_in_new_york = datetime(2013, 1, 1, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    assert of(late_in_new_york, "day") == "2013-01-02"
    assert of(late_in_new_york, "hour") == "2013-01-02T04"


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(SpecError, match="has no time zone"):
        of(datetime(2013, 1, 1), "day")  # noqa: DTZ001


@pytest.mark.parametrize(
    ("key", "granularity"),
    [
        *((key, "day") for key in ("2013-02-29", "2013-13-01", "2013-1-1", "2013-01-01T00", "20130101", "", "../x")),
        *((key, "day") for key in ("2013-01-01\n", " 2013-01-01", "2013-01-0\u0661", "0000-01-01")),
        *(
            (key, "hour")
            for key in ("2013-01-01", "2013-01-01T24", "2013-01-01T1", "2013-01-01 01", "2013-01-01T01:00")
        ),
    ],
)
def test_a_malformed_key_is_refused_with_an_example(key: str, granularity: Granularity) -> None:
    with pytest.raises(SpecError, match=f"is not a {granularity} key.*Allowed: keys like 2013-09-01"):
        start(key, granularity)


def test_a_range_that_runs_backwards_is_refused() -> None:
    with pytest.raises(SpecError, match=r"2013-09-02\.\.2013-09-01 runs backwards"):
        span("2013-09-02", "2013-09-01", "day")
    assert span("2013-09-01", "2013-09-01", "day") == ["2013-09-01"]


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_the_key_format_is_that_of_the_keys(granularity: Granularity) -> None:
    instant = datetime(2013, 9, 1, 5, tzinfo=UTC)
    assert instant.strftime(key_format(granularity)) == of(instant, granularity)
