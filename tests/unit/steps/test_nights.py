"""The state of each night: what came in, what was scored by whom, what is due, what is late."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from pipelines.errors import SpecError
from pipelines.partitions import shift
from pipelines.ports import Draft
from pipelines.records import Night, RunInfo
from pipelines.runtime import Runtime
from pipelines.spec import UseCase
from pipelines.steps.nights import span
from pipelines.steps.predictions import PREDICTIONS
from tests.cases.champions import DAYS, NAME, Champions
from tests.contracts.stores import RUN, audit

#: Half an hour after the run of the last day was due, 2:00 on the next one.
NOW = datetime(2024, 5, 13, 2, 30, tzinfo=UTC)
DAY = DAYS[9]


def open_run(champions: Champions, run_id: str = "night", *, backfill: bool = False) -> Runtime:
    at = datetime(2024, 5, 11, 2, tzinfo=UTC)
    run = RunInfo(run_id=run_id, dag_id=f"{NAME}_score", code_version="test", backfill=backfill, at=at)
    return Runtime.open(NAME, run=run, settings=champions.settings())


def score(runtime: Runtime, *nights: str, version: int = 1) -> None:
    runtime.publish_scores(runtime.audit_scores(runtime.score(nights, version)))


def put(runtime: Runtime, table: str, day: str, frame: pl.DataFrame) -> None:
    (staged,) = runtime.store.stage(table, [Draft(partition=day, frame=frame)], RUN)
    runtime.store.publish(table, [staged], [audit(staged)], RUN)


def rows(runtime: Runtime, day: str) -> pl.DataFrame:
    head = runtime.store.head("rows")
    assert head is not None
    return runtime.store.scan(head, [day]).drop("partition").collect()


def land(runtime: Runtime, day: str) -> Path:
    path = runtime.settings.landing_zone / "rows" / f"{day}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("id,pressure,wear,site\na,1,2,north\n", "utf-8")
    return path


def one(runtime: Runtime, day: str = DAY, now: datetime = NOW) -> Night:
    (night,) = runtime.nights([day], now)
    return night


def test_a_scored_night_says_by_which_model_and_run_and_when(champions: Champions) -> None:
    runtime = open_run(champions)
    assert (one(runtime).input, one(runtime).rows, one(runtime).due) == ("ingested", 150, "never scored")
    score(runtime, DAY)
    night = one(runtime)
    scores, head = night.scores, runtime.store.head(PREDICTIONS)
    assert scores is not None
    assert head is not None
    assert (scores.model, scores.rows, scores.restated, scores.run) == (1, 150, 0, runtime.run)
    assert scores.scored_at == runtime.run.at
    assert (scores.digest, scores.snapshot) == (runtime.store.partitions(head)[DAY].digest, head.id)
    assert (night.due, night.gap, night.late, night.labels, night.label_rows) == (None, False, False, "published", 150)
    assert night.snapshot == next(
        commit.snapshot.id for commit in runtime.store.history("rows") if DAY in commit.partitions
    )


def test_a_backfill_is_told_apart(champions: Champions) -> None:
    score(open_run(champions), DAYS[8])
    runtime = open_run(champions, "catching up", backfill=True)
    score(runtime, DAY)
    told = [night.scores.run.backfill for night in runtime.nights(DAYS[8:10], NOW) if night.scores]
    assert told == [False, True]
    assert runtime.store.history(PREDICTIONS)[0].run.backfill, "it stands in the commit"


def test_a_restated_input_is_due_until_it_is_scored_and_the_former_scores_are_counted(champions: Champions) -> None:
    runtime = open_run(champions)
    score(runtime, DAY)
    former = one(runtime)
    put(runtime, "rows", DAY, rows(runtime, DAY).head(140))
    restated = one(runtime)
    assert (restated.due, restated.rows) == ("input restated", 140)
    assert restated.snapshot != former.snapshot
    assert restated.scores == former.scores, "yesterday's stay until then"
    score(open_run(champions, "again"), DAY)
    healed = one(runtime)
    assert healed.due is None
    assert healed.scores is not None
    assert (healed.scores.rows, healed.scores.restated, healed.scores.run.run_id) == (140, 1, "again")
    before = runtime.store.history(PREDICTIONS)[1]
    assert runtime.store.partitions(before.snapshot)[DAY].rows == 150, "history is kept"
    runtime.store.revert(before.snapshot, RUN, reason="test")
    back = one(runtime)
    assert back.scores is not None
    assert former.scores is not None
    assert (back.scores.run, back.scores.digest, back.due) == (runtime.run, former.scores.digest, "input restated")


def test_an_empty_partition_is_published_with_zero_rows_and_shows(champions: Champions) -> None:
    runtime = open_run(champions)
    put(runtime, "rows", DAY, rows(runtime, DAY).head(0))
    score(runtime, DAY)
    night = one(runtime)
    assert (night.input, night.rows, night.due) == ("ingested", 0, None)
    assert night.scores is not None
    assert (night.scores.rows, night.scores.model) == (0, 1)
    assert one(runtime, DAYS[8]).scores is None, "no scores is another thing than scores of nothing"


def test_what_did_not_come_in_says_why(champions: Champions) -> None:
    runtime = open_run(champions)
    late, landed, bad = (shift(DAYS[-1], by, "day") for by in (-1, -2, -3))
    take_away(runtime, late, landed, bad)
    land(runtime, landed)
    set_aside(runtime, "rows", bad, land(runtime, bad))
    told = {night.partition: (night.input, night.gap) for night in runtime.nights([bad, landed, late], NOW)}
    assert told == {bad: ("quarantined", True), landed: ("landed", True), late: ("missing", True)}
    assert one(runtime, bad).quarantined == ("looked_at: far too few valves",)
    assert one(runtime, bad).due is None, "there is nothing to score"
    coming = shift(DAYS[-1], 1, "day")
    assert (one(runtime, coming).input, one(runtime, coming).gap) == ("to_come", False)
    day_after = NOW + timedelta(days=1)
    assert (one(runtime, coming, day_after).input, one(runtime, coming, day_after).gap) == ("missing", False)


def take_away(runtime: Runtime, *days: str) -> None:
    """Publishes the table anew without some days: a store of its own history, from before they came."""
    kept = {day: rows(runtime, day) for day in DAYS if day not in days}
    shutil.rmtree(runtime.settings.home / "snapshots")
    fresh = Runtime.open(NAME, run=runtime.run, settings=runtime.settings)
    for day, frame in kept.items():
        put(fresh, "rows", day, frame)


def set_aside(runtime: Runtime, table: str, day: str, original: Path) -> None:
    frame = pl.DataFrame({"id": ["a"], "pressure": [1.0], "wear": [1.0], "site": ["north"]})
    (staged,) = runtime.store.stage(table, [Draft(partition=day, frame=frame)], RUN)
    report = audit(staged, passed=False, observed="far too few valves")
    runtime.store.quarantine(report, staged, [original])


def test_a_bad_restatement_shows_beside_what_stands_until_something_better_is_published(
    champions: Champions,
) -> None:
    runtime = open_run(champions)
    assert one(runtime).quarantined == ()
    set_aside(runtime, "rows", DAY, land(runtime, DAY))
    assert (one(runtime).input, len(one(runtime).quarantined)) == ("ingested", 1)
    put(runtime, "rows", DAY, rows(runtime, DAY).head(149))
    assert one(runtime).quarantined == ()


def test_scores_that_were_refused_show_until_others_are_published(champions: Champions) -> None:
    runtime = open_run(champions)
    set_aside(runtime, PREDICTIONS, DAY, land(runtime, DAY))
    assert one(runtime).refused == ("looked_at: far too few valves",)
    score(runtime, DAY)
    assert one(runtime).refused == ()


def test_a_deadline_counts_from_the_tick_and_only_a_night_without_scores_is_past_it(
    registered: Champions, tmp_path: Path
) -> None:
    champions = registered.copy(tmp_path, scoring={"deadline_minutes": 45}, schedule="15 2 * * *")
    runtime = open_run(champions)
    last = DAYS[-1]
    deadline = datetime(2024, 5, 13, 3, tzinfo=UTC)
    assert one(runtime, last).deadline == deadline
    assert not one(runtime, last, deadline).late
    assert one(runtime, last, deadline + timedelta(seconds=1)).late
    missing = shift(last, -20, "day")
    assert (one(runtime, missing).input, one(runtime, missing).late) == ("missing", True)
    score(runtime, last)
    assert not one(runtime, last, deadline + timedelta(days=9)).late
    assert one(open_run(registered), last).deadline is None


def test_labels_are_late_once_the_run_that_takes_them_was_due(registered: Champions, tmp_path: Path) -> None:
    tables = {
        "labels": {
            "path": "labels/{partition}.csv",
            "columns": {"id": {"type": "string", "nullable": False}, "stuck": {"type": "bool"}},
            "key": ["id"],
            "lag": 1,
        }
    }
    runtime = open_run(registered.copy(tmp_path, tables=tables))
    coming = shift(DAYS[-1], 1, "day")
    taken = datetime(2024, 5, 15, 2, tzinfo=UTC)  # by the run of the 14th, which is due on the 15th
    assert one(runtime, coming, taken - timedelta(seconds=1)).labels == "to_come"
    assert one(runtime, coming, taken).labels == "late"


def test_all_nights_reach_from_the_first_that_is_known_to_the_last_that_was_due(
    registered: Champions, tmp_path: Path
) -> None:
    runtime = open_run(registered.copy(tmp_path))

    def ends(spec: UseCase, now: datetime) -> tuple[str, str, int]:
        found = span(spec, runtime.store, runtime.source, now)
        return found[0], found[-1], len(found)

    assert ends(runtime.spec, NOW) == (DAYS[0], DAYS[-1], 12)
    before_the_tick = NOW.replace(day=15, hour=1)
    assert ends(runtime.spec, before_the_tick) == (DAYS[0], "2024-05-13", 13)
    assert ends(runtime.spec, before_the_tick + timedelta(hours=1)) == (DAYS[0], "2024-05-14", 14)
    stopped = runtime.spec.model_copy(update={"until": "2024-05-14"})
    assert ends(stopped, NOW + timedelta(days=900)) == (DAYS[0], "2024-05-14", 14)
    assert ends(stopped, NOW - timedelta(days=900)) == (DAYS[0], DAYS[-1], 12), "what is there is shown"
    land(runtime, "2024-04-29")
    assert ends(runtime.spec, NOW) == ("2024-04-29", DAYS[-1], 14)


@pytest.mark.parametrize("cron", ["* * * * *", "0 2 * * 1", "60 2 * * *", "0 24 * * *", "0 */2 * * *", "@daily"])
def test_a_schedule_without_one_tick_a_night_is_an_error_that_names_it(cron: str, registered: Champions) -> None:
    runtime = open_run(registered)
    runtime.spec = runtime.spec.model_copy(update={"schedule": cron})
    with pytest.raises(SpecError, match="is not one tick a partition"):
        runtime.nights([DAY], NOW)
