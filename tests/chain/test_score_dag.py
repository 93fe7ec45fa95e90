"""The scoring DAG and a night's deadline under a real scheduler, API server and triggerer."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from include.demo.airflow_api import Airflow, ApiError, Run
from include.local import servers
from pipelines import partitions
from pipelines.records import Alert, Prediction, RunInfo
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.spec import load_spec
from tests.cases import REPOSITORY, Case, _hour, _put
from tests.chain.conftest import ingest, runtime_of, train
from tests.servers.channels import Place, serving

_SECONDS = 240.0
_SHARD = "predictions.shard"
#: More rows than this are a shard a task; an hour has 60.
_SHARD_ROWS = 100
T = TypeVar("T")

#: In the DAG file of the tests: the first shard that starts while this file is there dies when its files are written.
_TRAP = """
import os
from airflow.sdk import get_parsing_context

if get_parsing_context().task_id == "predictions.shard":
    try:
        os.unlink({mark!r})
        os.environ["OVERNIGHT_FAILPOINT"] = "shard.written"
    except FileNotFoundError:
        pass
"""


@dataclass(frozen=True)
class Live:
    """Airflow and MLflow, running, on an hourly use case with a champion and a deadline a day after each tick."""

    airflow: Airflow
    runtime: Runtime
    case: Case
    where: servers.Places
    trap: Path
    pager: Place
    """The other side of the use case's channel of alerts."""

    def score(self, **conf: object) -> Run:
        """One scoring run by hand, to its end."""
        return self.finish(self.airflow.trigger("readings_score", **conf))

    def finish(self, run: Run | None) -> Run:
        """Waits for a run's end."""
        assert run is not None
        return self.airflow.wait(run, _SECONDS, lambda _: None)

    def shards(self, run: Run) -> list[dict[str, object]]:
        """The mapped tasks of a run, as the API tells them."""
        path = f"/dags/{run.dag_id}/dagRuns/{run.run_id}/taskInstances/{_SHARD}/listMapped"
        found: list[dict[str, object]] = self.airflow.get(path)["task_instances"]
        return found

    def published(self, run: Run) -> list[Prediction]:
        """What a run's `publish` returned."""
        told = self.airflow.result(run, "predictions.publish")
        return [Prediction.model_validate(one) for one in told["record"]]

    def due(self, run: Run) -> datetime:
        """When the run was due."""
        return datetime.fromisoformat(self.airflow.get(f"/dags/{run.dag_id}/dagRuns/{run.run_id}")["run_after"])

    def night(self, partition: str) -> Run:
        """The scheduler's own ingest run of a partition: its tick is moved to this moment."""
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
        self.sql(
            "UPDATE dag SET next_dagrun_create_after = ?, next_dagrun_partition_date = ?, next_dagrun_partition_key = ?"
            " WHERE dag_id = 'readings_ingest'",
            *(now, now, partition),
        )
        run = self.airflow.wait_for_run(
            "readings_ingest", lambda run: run.partition == partition and run.run_type == "scheduled", _SECONDS
        )
        return self.finish(run)

    def scoring_of(self, partition: str) -> Run | None:
        """The scoring run that an announcement started."""
        return self.airflow.wait_for_run("readings_score", lambda run: run.partition == partition, _SECONDS)

    def deadlines(self, partition: str) -> list[tuple[str, int]]:
        """DAG and whether it was missed, of each deadline that Airflow keeps of a partition."""
        return self.sql(
            "SELECT dag_run.dag_id, deadline.missed FROM deadline JOIN dag_run ON dag_run.id = deadline.dagrun_id"
            " WHERE dag_run.partition_key = ? ORDER BY 1",
            partition,
        )

    def callbacks(self) -> set[str]:
        """What the calls about missed deadlines returned."""
        return {output for (output,) in self.sql("SELECT output FROM callback WHERE state = 'success'")}

    def alerts(self, partition: str) -> list[Alert]:
        """What the book says of a partition."""
        return [alert for alert in self.runtime.alerts.entries() if alert.partition == partition]

    def paged(self, partition: str) -> list[tuple[str, str]]:
        """Kind and state of each message about a partition that the pager got."""
        events = [json.loads(body) for _, _, body in self.pager.got]
        return [(one["kind"], one["state"]) for one in events if one["partition"] == partition]

    def sql(self, statement: str, *values: object) -> list[Any]:
        """One statement in Airflow's own database: how a test lets time pass."""
        with closing(sqlite3.connect(self.where.airflow / "airflow.db", timeout=30)) as database, database:
            return list(database.execute(statement, values))

    def land(self, partition: str, rows: int = 60, site: str | None = None) -> None:
        """Files of an hour that nobody sent yet."""
        readings, states = _hour(partition, rows, random.Random(partition))
        _put(
            self.case.landing / "readings" / f"hour={partition}" / "readings.jsonl.gz",
            [{**reading, "site": site or reading["site"]} for reading in readings],
        )
        states.write_parquet(self.case.landing / "states" / f"{partition}.parquet")


def wait_for(there: Callable[[], T]) -> T:
    """Waits until it is true."""
    deadline = time.monotonic() + _SECONDS
    while not (found := there()):
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.2)
    return found


@pytest.fixture(scope="module")
def live(third_case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    root = tmp_path_factory.mktemp("scoring")
    project = shutil.copytree(third_case.project, root / "project")
    landing = shutil.copytree(third_case.landing, root / "landing")
    path = project / third_case.path.relative_to(third_case.project)
    written = yaml.safe_load(path.read_text())
    written["scoring"] |= {"shard_rows": _SHARD_ROWS, "parallel": 2, "deadline_minutes": 24 * 60}
    written["alerts"] = [{"name": "pager", "to": "webhook", "connection": "pager", "endpoint": "/events"}]
    written["gates"] |= {"bound": 0.0, "max_loss_to_lightgbm": 1.0, "golden": []}  # the gates are tested elsewhere
    path.write_text(yaml.safe_dump(written))
    shutil.copytree(REPOSITORY / "plugins", project / "plugins")
    shutil.copytree(REPOSITORY / "dags" / "usecase_dags", project / "dags" / "usecase_dags")
    shipped = (REPOSITORY / "dags" / "flights.py").read_text().replace("flights", "readings")
    trap = root / "trap"
    (project / "dags" / "readings.py").write_text(shipped + _TRAP.format(mark=str(trap)))
    case = replace(third_case, project=project, landing=landing, path=path, spec=load_spec(path))
    home = root / "var"
    runtime = runtime_of(case, home)
    ingest(runtime, list(case.keys))
    assert train(runtime, case.keys[-8]) == 1
    with serving(Place()) as pager, pytest.MonkeyPatch.context() as environment:
        for name, value in {
            "AIRFLOW_CONN_PAGER": pager.connection,
            "OVERNIGHT_PROJECT": str(project),
            "OVERNIGHT_LANDING": str(landing),
            **servers.direct_loopback(),
        }.items():
            environment.setenv(name, value)
        where = servers.Places(home=home)
        with servers.running(where) as running:
            airflow = Airflow(running.airflow_url, servers.USER, servers.password(where))
            airflow.wait_for_dags({"readings_ingest", "readings_score"}, _SECONDS)
            settings = Settings(project=project, landing=landing, home=home, mlflow_uri=running.mlflow_url)
            yield Live(airflow, Runtime(case.spec, settings, runtime.run), case, where, trap, pager)


@pytest.mark.timeout(900)
def test_an_ordinary_night_is_scored_by_one_task_and_the_mapped_one_starts_no_process(live: Live) -> None:
    run = live.score(partition=live.case.keys[-7])
    assert live.airflow.states(run) == {
        "predictions.score": "success",
        _SHARD: "skipped",
        "predictions.audit": "success",
        "predictions.publish": "success",
    }
    (part,) = live.published(run)
    assert (part.state, part.rows_scored) == ("published", 60)
    (skipped,) = [task for task in live.airflow.tasks(run) if task.task_id == _SHARD]
    assert skipped.tries == 0


@pytest.mark.timeout(900)
def test_a_killed_shard_is_scored_again_alone_and_the_bytes_are_those_of_one_process(live: Live) -> None:
    partition = partitions.shift(live.case.keys[-1], 1, "hour")
    live.land(partition, rows=250)
    ingest(live.runtime, [partition])
    before = shutil.copytree(live.where.home / "snapshots", live.where.home / "before")
    live.trap.touch()
    run = live.score(partition=partition)
    assert run.state == "success", live.airflow.states(run)
    shards = live.shards(run)
    labels = [f"{partition} rows {first}..{last}" for first, last in ((0, 83), (84, 167), (168, 249))]
    assert sorted(str(shard["rendered_map_index"]) for shard in shards) == sorted(labels)
    assert sorted(str(shard["try_number"]) for shard in shards) == ["1", "1", "2"]

    (part,) = live.published(run)
    assert (part.state, part.rows_scored) == ("published", 250)
    who = RunInfo(run_id=run.run_id, dag_id=run.dag_id, at=live.due(run))
    told = live.runtime.settings
    then = Settings(project=told.project, home=told.home, mlflow_uri=told.mlflow_uri, snapshots_uri=str(before))
    (staged,) = Runtime(live.case.spec, then, who).score([partition]).staged
    assert staged.digest == part.digest
    assert not list((live.where.home / "work").rglob("scores/*/*")), "pieces are gone once they are published"

    live.airflow.clear(run, "predictions.score")
    cleared = live.finish(run)
    assert cleared.state == "success"
    (repeat,) = live.published(cleared)
    assert (repeat.state, repeat.digest) == ("unchanged", part.digest)


@pytest.mark.timeout(900)
def test_a_range_is_scored_in_parallel_in_one_run_that_is_told_apart_and_starts_nothing(live: Live) -> None:
    first, last = live.case.keys[-6], live.case.keys[-2]
    before = len(live.airflow.runs("readings_score"))
    run = live.score(**{"from": first, "to": last})
    assert run.state == "success", live.airflow.states(run)
    assert len(live.shards(run)) == 5
    assert [part.partition for part in live.published(run)] == list(live.case.keys[-6:-1])
    (commit, *_) = live.runtime.store.history("predictions")
    assert commit.run.backfill
    assert set(commit.partitions) == set(live.case.keys[-6:-1]), "one commit"
    assert len(live.airflow.runs("readings_score")) == before + 1
    events = live.airflow.get("/assets/events", source_run_id=run.run_id)["asset_events"]
    assert [event["extra"]["backfill"] for event in events] == [True]
    assert live.runtime.alerts.entries() == []


@pytest.mark.timeout(900)
def test_a_night_without_input_is_told_once_after_its_deadline_and_its_rerun_ends_the_alert(live: Live) -> None:
    partition = partitions.shift(live.case.keys[-1], 3, "hour")
    run = live.night(partition)
    assert run.state == "failed"
    (alert,) = wait_for(lambda: live.alerts(partition))
    assert (alert.kind, alert.state, alert.use_case) == ("late", "open", "readings")
    assert alert.since == partitions.start(partitions.shift(partition, 25, "hour"), "hour").replace(minute=5)
    assert alert.what == "its rows are not published"
    assert "readings_ingest" in alert.remedy
    assert alert.run == f"readings_ingest/{run.run_id}"
    wait_for(lambda: live.paged(partition))
    assert live.paged(partition) == [("late", "open")], "by the triggerer"
    log, said = live.where.logs / "triggerer.log", f"the scores of {partition} are late"
    wait_for(lambda: said in log.read_text())  # it writes the book first

    live.airflow.clear(run, "rows.land")
    assert live.finish(run).state == "failed"
    live.land(partition)
    again = live.finish(live.airflow.trigger("readings_ingest", partition=partition))
    assert live.airflow.states(again)["announce"] == "success"
    scored = live.finish(live.scoring_of(partition))
    assert scored.state == "success"
    told = live.alerts(partition)
    assert [line.state for line in told] == ["open", "resolved"]
    assert told[1].run == f"readings_score/{scored.run_id}"
    assert live.runtime.alerts.open() == []
    assert live.paged(partition) == [("late", "open"), ("late", "resolved")]
    assert log.read_text().count(said) == 1


@pytest.mark.timeout(900)
def test_a_night_that_is_scored_in_time_raises_no_alert_and_a_failed_scoring_does(live: Live) -> None:
    now = partitions.of(datetime.now(UTC), "hour")
    good, unlabelled, bad = (partitions.shift(now, by, "hour") for by in (-2, -7, -1))
    live.land(partitions.shift(good, -2, "hour"))  # its labels, which come two hours later
    live.land(good)
    live.land(unlabelled)
    live.land(bad, site="nowhere")
    ingested = [live.night(partition).state for partition in (good, unlabelled, bad)]
    assert ingested == ["success", "failed", "failed"], "a label file is missing, which holds up no night"
    scored = [live.finish(live.scoring_of(partition)).state for partition in (good, unlabelled, bad)]
    assert scored == ["success", "success", "failed"]
    assert live.deadlines(good) == [], "both runs succeeded in time: Airflow forgets"
    assert live.deadlines(unlabelled) == [("readings_ingest", 0)]
    # Airflow may make two runs of one key; both then wait for the same scores.
    assert set(live.deadlines(bad)) == {("readings_ingest", 0), ("readings_score", 0)}
    assert live.runtime.alerts.open() == [], "not yet"

    live.sql("UPDATE deadline SET deadline_time = ? WHERE missed = 0", "2024-01-01 00:00:00.000000")
    (alert,) = wait_for(lambda: live.alerts(bad))
    assert alert.what == "its rows are published, its scores are not"
    wait_for(lambda: live.callbacks() >= {f"{bad}: told", f"{bad}: told before", f"{unlabelled} is published"})
    assert live.runtime.alerts.open() == [alert], "two runs missed it, and it is told once"


@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", ["best", "0", "-1", "1.5", "champion; DROP TABLE", ""])
def test_the_form_refuses_what_is_no_model(live: Live, model: str) -> None:
    with pytest.raises(ApiError, match="model"):
        live.airflow.trigger("readings_score", partition=live.case.keys[-7], model=model)


@pytest.mark.timeout(900)
def test_airflows_own_backfill_of_the_scoring_dag_is_refused(live: Live) -> None:
    with pytest.raises(ApiError):
        live.airflow._ask(
            "POST",
            "/api/v2/backfills",
            {"dag_id": "readings_score", "from_date": "2024-02-28T20:00:00Z", "to_date": "2024-02-28T22:00:00Z"},
        )
