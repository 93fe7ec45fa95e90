"""`@step`: what a task returns, which errors are tried again, and where its links lead."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.errors import ConflictError, InputError, QuarantinedError, TransientError, UnavailableError
from pipelines.records import SnapshotRef


def _task(function: Any, **options: Any) -> Any:
    from airflow.sdk import DAG
    from usecase_dags.steps import step

    with DAG("test", schedule=None) as dag:
        step(function, **options)()
    return dag.tasks[0]


def test_a_step_returns_its_record_as_json_and_its_seconds() -> None:
    def work() -> SnapshotRef:
        return SnapshotRef(store="delta", use_case="flights", table="rows", version="3")

    result = _task(work).execute({})
    assert result["record"] == {"store": "delta", "use_case": "flights", "table": "rows", "version": "3"}
    assert set(result["seconds"]) == {"import", "work"}
    assert all(seconds >= 0 for seconds in result["seconds"].values())


@pytest.mark.parametrize("error", [InputError("a broken file"), QuarantinedError("bad scores")])
def test_an_error_that_a_retry_cannot_help_fails_the_task_at_once(error: Exception) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    def work() -> None:
        raise error

    with pytest.raises(AirflowFailException, match=str(error)):
        _task(work).execute({})


@pytest.mark.parametrize("error", [ConflictError("another won"), UnavailableError("no answer"), OSError("disk")])
def test_any_other_error_is_raised_as_it_is_so_that_airflow_tries_again(error: Exception) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    def work() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        _task(work).execute({})
    assert not isinstance(caught.value, AirflowFailException)
    assert not isinstance(caught.value, TransientError) or isinstance(error, TransientError)


def test_a_link_is_what_the_step_made_and_empty_otherwise() -> None:
    from usecase_dags.steps import SNAPSHOT, VALIDATION

    def work() -> None: ...

    task = _task(work, links=(SNAPSHOT, VALIDATION))
    task.made["snapshot"] = "/overnight/snapshots/flights/rows/3"
    links = {link.name: link.get_link(task, ti_key=None) for link in task.operator_extra_links}
    assert links == {"Snapshot": "/overnight/snapshots/flights/rows/3", "Validation report": ""}


def test_the_links_of_a_task_survive_serialization() -> None:
    from airflow.serialization.serialized_objects import DagSerialization
    from usecase_dags.steps import DRIFT

    def work() -> None: ...

    dag = _task(work, links=(DRIFT,)).dag
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert again.get_task("work").operator_extra_link_dict["Drift report"].xcom_key == "link_drift"


def test_the_url_of_a_report_is_below_the_servers_own_path(monkeypatch: pytest.MonkeyPatch) -> None:
    from usecase_dags.steps import report_url, snapshot_url

    assert report_url("/var/reports/flights/drift/2013-09-30.html", "/var/reports") == (
        "/overnight/reports/flights/drift/2013-09-30.html"
    )
    assert report_url(None, "/var/reports") is None
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.org/airflow")
    ref = SnapshotRef(store="delta", use_case="flights", table="rows", version="3")
    assert snapshot_url(ref) == "/airflow/overnight/snapshots/flights/rows/3"


def test_a_look_at_the_aliases_that_fails_holds_up_no_night(caplog: pytest.LogCaptureFixture) -> None:
    from types import SimpleNamespace

    from usecase_dags.score import _notice_moved_aliases

    def broken() -> Any:
        raise UnavailableError("MLflow did not answer")

    runtime: Any = SimpleNamespace(spec=SimpleNamespace(name="flights"), alias_state=broken)
    with caplog.at_level("WARNING"):
        _notice_moved_aliases(runtime)
    assert "MLflow did not answer" in caplog.text
