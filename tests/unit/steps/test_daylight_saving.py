"""Partitions are UTC: a local day of 23 or of 25 hours has as many hours to score, and each row lies in one of them."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest

from pipelines.partitions import of, span
from pipelines.runtime import Runtime
from pipelines.steps.predictions import PREDICTIONS
from tests.cases.champions import Champions

NEW_YORK = ZoneInfo("America/New_York")
STEP = timedelta(minutes=3)
#: The valves by the hour, with the instant at which each was read.
HOURLY: dict[str, Any] = {
    "granularity": "hour",
    "schedule": "5 * * * *",
    "monitor_schedule": "35 * * * *",
    "tables": {
        "rows": {
            "path": "rows/{partition}.csv",
            "columns": {
                "id": {"type": "string", "nullable": False},
                "at": {"type": "timestamp", "nullable": False},
                "pressure": {"type": "float"},
                "wear": {"type": "float"},
                "site": {"type": "string"},
            },
            "key": ["id"],
            "event_time": "at",
        }
    },
}


def readings(day: datetime) -> list[tuple[str, datetime]]:
    """One every few minutes of a local day, from its midnight to the next: named by a clock on the wall."""
    begin, end = (local.astimezone(UTC) for local in (day, day + timedelta(days=1)))
    count = int((end - begin) / STEP)
    found = [(begin + number * STEP).astimezone(NEW_YORK) for number in range(count)]
    return [(f"{at:%H:%M} {at.tzname()}", at) for at in found]


def land(runtime: Runtime, rows: list[tuple[str, datetime]]) -> None:
    """The source writes local time with its offset, into the file of the UTC hour."""
    dice = random.Random(3)
    files: dict[str, list[str]] = {}
    for name, at in rows:
        values = f"{dice.gauss(0, 1):.3f},{dice.random():.3f},{dice.choice(('north', 'south'))}"
        files.setdefault(of(at, "hour"), []).append(f"{name},{at.isoformat()},{values}\n")
    for key, lines in files.items():
        path = runtime.settings.landing_zone / "rows" / f"{key}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("id,at,pressure,wear,site\n" + "".join(lines), "utf-8")


@pytest.mark.parametrize(
    ("day", "hours", "first", "last", "twice"),
    [
        (datetime(2013, 3, 10, tzinfo=NEW_YORK), 23, "2013-03-10T05", "2013-03-11T03", 0),
        (datetime(2013, 11, 3, tzinfo=NEW_YORK), 25, "2013-11-03T04", "2013-11-04T04", 20),
    ],
    ids=["23 hours", "25 hours"],
)
def test_every_row_of_a_long_or_a_short_day_is_scored_once(
    day: datetime,
    hours: int,
    first: str,
    last: str,
    twice: int,
    registered: Champions,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    champions = registered.copy(tmp_path_factory.mktemp("clocks"), **HOURLY)
    shutil.rmtree(champions.home / "snapshots")  # of days; the registry stays
    runtime = champions.runtime()
    rows = readings(day)
    assert len(rows) == hours * 20
    wall = Counter(name.split()[0] for name, _ in rows)
    assert sum(times == 2 for times in wall.values()) == twice, "on a clock on the wall an hour comes twice, or never"
    land(runtime, rows)

    partitions = span(first, last, "hour")
    assert len(partitions) == hours
    around = span(of(rows[0][1] - timedelta(hours=1), "hour"), of(rows[-1][1] + timedelta(hours=1), "hour"), "hour")
    validated = runtime.validate(runtime.land("rows", around))
    assert validated.quarantined == (), "each row lies inside its hour"
    assert validated.missing == (around[0], around[-1])
    runtime.publish(validated)
    for _ in range(2):
        scored = runtime.publish_scores(runtime.audit_scores(runtime.score(partitions, 1)))
        assert [(each.partition, each.rows_scored) for each in scored] == [(key, 20) for key in partitions]
    assert {each.state for each in scored} == {"unchanged"}
    head = runtime.store.head(PREDICTIONS)
    assert head is not None
    names = runtime.store.scan(head).select("id").collect().get_column("id")
    assert sorted(names) == sorted(name for name, _ in rows)
    seen = runtime.nights(partitions, datetime(2013, 12, 1, tzinfo=UTC))
    assert all(night.scores is not None and night.scores.rows == 20 and night.due is None for night in seen)
    assert pl.Series(names).is_unique().all()
