"""Until when a night's scores must be there, and which runs have a deadline at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.errors import UnavailableError
from pipelines.records import RunInfo
from pipelines.spec import UseCase, load_spec
from pipelines.spec.scoring import Scoring
from tests.dags.conftest import load_plugin

PROJECT = Path(__file__).resolve().parents[2]
_TICK = datetime(2013, 9, 2, 2, tzinfo=UTC)


def _spec(**changes: Any) -> UseCase:
    spec = load_spec(PROJECT / "include" / "use_cases" / "flights.yaml")
    return spec.model_copy(update={"scoring": Scoring(deadline_minutes=90), **changes})


def _reference(spec: UseCase) -> Any:
    from usecase_dags.shared import deadline

    return deadline(spec)["deadline"].reference


def test_without_a_deadline_in_the_spec_no_dag_has_one(dags: dict[str, Any]) -> None:
    from usecase_dags import ingest, score

    bare = _spec(scoring=Scoring())
    assert ingest.build(bare).deadline is None
    assert score.build(bare).deadline is None
    assert "late" not in score.build(bare).doc_md
    assert all("90 minutes after" in kind.build(_spec()).doc_md for kind in (ingest, score))


@pytest.mark.parametrize(
    ("granularity", "schedule", "partition", "tick"),
    [
        ("day", "0 2 * * *", "2013-09-01", _TICK),
        ("day", "45 23 * * *", "2013-09-01", datetime(2013, 9, 2, 23, 45, tzinfo=UTC)),
        ("hour", "10 * * * *", "2013-09-01T23", datetime(2013, 9, 2, 0, 10, tzinfo=UTC)),
        ("day", "0 2 * * *", "2013-03-09", datetime(2013, 3, 10, 2, tzinfo=UTC)),
    ],
)
def test_the_tick_of_a_partition_is_the_one_at_which_the_scheduler_takes_it(
    granularity: Any, schedule: str, partition: str, tick: datetime
) -> None:
    from usecase_dags import ingest

    from tests.dags.test_schedules import _next

    spec = _spec(granularity=granularity, schedule=schedule, until=None)
    assert _reference(spec).tick("scheduled", partition, {}, tick) == tick
    info = _next(ingest.build(spec), (tick - timedelta(seconds=1)).isoformat())
    assert (info.run_after, info.partition_key) == (tick, partition)


def test_what_makes_up_for_the_past_has_no_deadline() -> None:
    reference, early = _reference(_spec()), _TICK + timedelta(minutes=89)
    late = _TICK + timedelta(minutes=90)
    assert reference.tick("asset_triggered", "2013-09-01", {}, early) == _TICK
    assert reference.tick("manual", None, {"partition": "2013-09-01"}, early) == _TICK
    assert reference.tick("scheduled", "2013-09-01", {}, late) == _TICK, "a scheduler that was down: it is late"
    assert reference.tick("asset_triggered", "2013-09-01", {}, late) is None, "the ingest run's deadline told it"
    assert reference.tick("manual", None, {"partition": "2013-09-01"}, late) is None
    assert reference.tick("manual", None, {"from": "2013-09-01", "to": "2013-09-02"}, early) is None
    assert reference.tick("backfill", "2013-09-01", {}, early) is None
    assert reference.tick("manual", None, {}, early) is None
    assert reference.tick("manual", None, {"partition": "../.."}, early) is None, "the run's first task says so"


@pytest.mark.parametrize("kind", ["ingest", "score"])
def test_the_scheduler_makes_the_same_deadline_of_the_serialized_dag(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import usecase_dags
    from airflow import plugins_manager
    from airflow.serialization.decoders import decode_deadline_alert
    from airflow.serialization.serialized_objects import DagSerialization
    from usecase_dags import ingest, score  # noqa: F401 (by name below)

    plugin = load_plugin("overnight_deadlines")
    registered = {f"overnight_deadlines.{one.__name__}": one for one in plugin.OvernightDeadlines.deadline_references}
    monkeypatch.setattr(plugins_manager, "get_deadline_references_plugins", lambda: registered)
    dag = getattr(usecase_dags, kind).build(_spec())
    ((alert),) = DagSerialization.to_dict(dag)["dag"]["deadline"]
    again = decode_deadline_alert(alert)
    assert again.interval == timedelta(minutes=90)
    assert again.reference.inner_ref.serialize_reference() == _reference(_spec()).serialize_reference()
    assert again.callback.path == "overnight_deadlines.tell_if_late"
    assert again.callback.kwargs == {"use_case": "flights"}
    assert DagSerialization.to_dict(dag) == DagSerialization.to_dict(getattr(usecase_dags, kind).build(_spec())), (
        "a parse makes no new version"
    )


def test_a_store_that_cannot_be_read_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    plugin = load_plugin("overnight_deadlines")
    told: list[Any] = []

    def no_answer(_partition: str) -> None:
        raise UnavailableError("the store did not answer")

    book = SimpleNamespace(tell=lambda alert: bool(told.append(alert)) or True)
    run = RunInfo(run_id="night", dag_id="flights_ingest")
    runtime = SimpleNamespace(missing=no_answer, alerts=book, run=run, spec=SimpleNamespace(name="flights"))
    monkeypatch.setattr(plugin, "_open", lambda *_: runtime)
    monkeypatch.setattr(plugin, "_PAUSE", 0.0)
    context = {
        "dag_run": {"dag_id": "flights_ingest", "dag_run_id": "night", "partition_key": "2013-09-01", "conf": None},
        "deadline": {"id": "1", "deadline_time": "2013-09-02T03:30:00+00:00"},
    }
    assert asyncio.run(plugin.tell_if_late("flights", context)) == "2013-09-01: told"
    (alert,) = told
    assert "the store did not answer" in alert.what
    assert alert.since == _TICK + timedelta(minutes=90)
