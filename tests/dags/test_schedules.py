"""Which run is for which partition, as Airflow's own scheduler code works it out from the serialized DAG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pendulum
import pytest

from pipelines.errors import SpecError
from pipelines.spec import UseCase, load_spec

PROJECT = Path(__file__).resolve().parents[2]


def _spec(**changes: Any) -> UseCase:
    spec = load_spec(PROJECT / "include" / "use_cases" / "flights.yaml")
    return spec.model_copy(update=changes)


def _next(dag: Any, after: str) -> Any:
    """The run that the scheduler makes next, the last one having run at `after`."""
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables.base import DagRunInfo, TimeRestriction

    real = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    last = pendulum.parse(after)
    return real.timetable.next_dagrun_info_v2(
        last_dagrun_info=DagRunInfo(run_after=last, data_interval=None, partition_date=last, partition_key="-"),
        restriction=TimeRestriction(earliest=None, latest=real.end_date, catchup=True),
    )


def test_the_run_at_two_in_the_morning_is_for_the_day_that_has_just_ended() -> None:
    from usecase_dags import ingest

    info = _next(ingest.build(_spec()), "2013-09-01T02:00:00Z")
    assert info.run_after == pendulum.parse("2013-09-02T02:00:00Z")
    assert info.partition_key == "2013-09-01"


def test_an_hourly_run_is_for_the_hour_that_has_just_ended() -> None:
    from usecase_dags import ingest

    dag = ingest.build(_spec(granularity="hour", schedule="10 * * * *", until=None))
    info = _next(dag, "2013-09-01T04:10:00Z")
    assert info.run_after == pendulum.parse("2013-09-01T05:10:00Z")
    assert info.partition_key == "2013-09-01T04"


def test_a_night_of_daylight_saving_has_its_own_partition() -> None:
    from usecase_dags import ingest

    keys = [_next(ingest.build(_spec()), f"2013-11-0{day}T02:00:00Z").partition_key for day in (2, 3, 4)]
    assert keys == ["2013-11-02", "2013-11-03", "2013-11-04"]


@pytest.mark.parametrize(
    ("granularity", "cron", "after"),
    [
        ("day", "15 2 * * *", "2013-03-10T02:15:00Z"),
        ("day", "0 0 * * *", "2013-11-03T00:00:00Z"),
        ("hour", "10 * * * *", "2013-11-03T05:10:00Z"),
    ],
)
def test_a_night_is_due_when_the_scheduler_runs_it(granularity: str, cron: str, after: str) -> None:
    from usecase_dags import ingest

    from pipelines.partitions import tick

    spec = _spec(granularity=granularity, schedule=cron, until=None)
    info = _next(ingest.build(spec), after)
    assert tick(info.partition_key, cron, spec.granularity) == info.run_after


def test_the_last_run_is_for_the_last_partition_of_a_source_that_has_ended() -> None:
    from usecase_dags import ingest

    dag = ingest.build(_spec(until="2013-12-31"))
    assert _next(dag, "2013-12-31T02:00:00Z").partition_key == "2013-12-31"
    assert _next(dag, "2014-01-01T02:00:00Z") is None


@pytest.mark.parametrize("cron", ["0 2 * * 1", "0 */6 * * *", "@daily", "*/5 * * * *"])
def test_a_schedule_whose_ticks_are_not_one_a_partition_is_refused(cron: str) -> None:
    from usecase_dags import ingest

    with pytest.raises(SpecError, match="one time a day"):
        ingest.build(_spec(schedule=cron))


def test_the_predecessor_of_a_scoring_run_is_the_announcement_of_its_partition() -> None:
    from usecase_dags import ingest, score

    announced = ingest.build(_spec()).get_task("announce").outlets
    assert score.build(_spec()).timetable.asset_condition == announced[0]
