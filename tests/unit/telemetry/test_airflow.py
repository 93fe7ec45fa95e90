"""Airflow's own metrics reach a collector, with the environment that docker-compose.yaml sets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from tests.unit.production import fresh_environment, load
from tests.unit.telemetry.collector import Collector, collecting

_DAG = """
from airflow.sdk import dag, task


@dag(schedule=None, tags=["tests"])
def short():
    @task
    def work():
        return 1

    work()


short()
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an Airflow of its own, its database made, without metrics."""
    home = tmp_path_factory.mktemp("airflow")
    (home / "dags").mkdir()
    (home / "dags" / "short.py").write_text(_DAG)
    own = {
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(home / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "1",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }
    environment = {**os.environ, **own}
    _run(["db", "migrate"], environment)
    return environment


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "airflow", *arguments],
        env=environment,
        cwd=environment["AIRFLOW_HOME"],
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def _told(service: str, collector: Collector) -> dict[str, str]:
    """What compose says to a service about metrics, with the address of the collector here."""
    told = load(fresh_environment())["services"][service]["environment"]
    found = {name: value for name, value in told.items() if name.startswith(("AIRFLOW__METRICS__", "OTEL_"))}
    assert found["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"] == "http://collector:4318/v1/metrics"
    return {**found, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": collector.url}


def test_the_scheduler_s_heartbeat_and_slots_arrive(airflow: dict[str, str]) -> None:
    with collecting() as collector:
        _run(["scheduler", "--skip-serve-logs", "--num-runs", "12"], {**airflow, **_told("scheduler", collector)})
    assert {path for path, _ in collector.requests} == {"/v1/metrics"}
    sent = [metric for service, metric in collector.metrics() if service == "airflow-scheduler"]
    heartbeats = [metric for metric in sent if metric.name == "airflow.scheduler_heartbeat"]
    assert heartbeats, sorted({metric.name for metric in sent})
    assert sum(point.as_int or point.as_double for each in heartbeats for point in each.sum.data_points) >= 1
    assert {each.sum.aggregation_temporality for each in heartbeats} == {
        AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    }
    names = {metric.name for metric in sent}
    assert {"airflow.executor.open_slots", "airflow.executor.queued_tasks", "airflow.executor.running_tasks"} <= names


def test_a_task_s_end_arrives_with_its_names_as_attributes(airflow: dict[str, str]) -> None:
    with collecting() as collector:
        _run(["dags", "test", "short"], {**airflow, **_told("worker", collector)})
    ends = [metric for service, metric in collector.metrics() if metric.name == "airflow.ti.finish"]
    points = [
        {each.key: each.value.string_value for each in point.attributes}
        for each in ends
        for point in each.sum.data_points
    ]
    assert {"dag_id": "short", "task_id": "work", "state": "success"}.items() <= points[0].items()
    assert not [metric.name for _, metric in collector.metrics() if "short" in metric.name], "no legacy names"


def test_without_the_settings_nothing_is_sent(airflow: dict[str, str], tmp_path: Path) -> None:
    with collecting() as collector:
        off = {**airflow, **_told("worker", collector), "AIRFLOW__METRICS__OTEL_ON": "False"}
        _run(["dags", "test", "short"], off)
    assert collector.requests == []
