"""The task that asks a person. What needs a scheduler and an API server is in tests/chain/test_approval.py."""

from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import GateRefused, UnavailableError
from pipelines.records import GateReport, RunInfo, TrainedModel, TrainingSet
from pipelines.runtime import Runtime
from pipelines.settings import Settings
from pipelines.spec import UseCase
from tests.cases import REPOSITORY
from tests.dags.test_comparison import PASSED, make_evaluation
from tests.dags.test_graphs import GOLDEN, graph

_AT = datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


@pytest.fixture
def manual(flights_spec: UseCase) -> UseCase:
    return flights_spec.model_copy(update={"promotion": "manual", "approval_hours": 2.0})


@pytest.fixture
def dag(manual: UseCase) -> Any:
    from usecase_dags import train

    return train.build(manual)


class State(dict[str, Any]):
    """What Airflow keeps of a task over its tries, in memory."""

    def set(self, key: str, value: Any, *, retention: Any = None) -> None:  # noqa: ARG002 (Airflow's signature)
        self[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        self.pop(key, None)


class Instance:
    """Takes XComs."""

    map_index = -1

    def __init__(self) -> None:
        self.pushed: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


@pytest.fixture
def runtime(manual: UseCase, tmp_path: Path, empty_mlflow: Path) -> Runtime:
    shutil.copytree(empty_mlflow, tmp_path / "mlflow")
    settings = Settings(project=REPOSITORY, home=tmp_path)
    return Runtime(manual, settings, RunInfo(run_id="run", code_version="test"))


@pytest.fixture
def task(dag: Any, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The task, its inputs there, and its form on the screen."""
    from usecase_dags import approval

    monkeypatch.setattr(approval, "open_runtime", lambda _: runtime)
    run_id = runtime.registry.start_training(runtime.spec, {})
    days = ("2013-09-01", "2013-09-14")
    training_set = TrainingSet(
        use_case="flights",
        folder="set",
        as_of="2013-09-15",
        snapshots=(),
        train=days,
        validation=days,
        holdout=days,
        rows={},
        digest="0" * 64,
    )
    trained = TrainedModel(
        run_id=run_id,
        folder="artifact",
        digest="0" * 64,
        training_set=training_set,
        scorecards=(),
        seconds=1.0,
    )
    task = dag.get_task("promotion.approve")
    for name, record in (("trained", trained), ("evaluated", make_evaluation()), ("gated", PASSED)):
        setattr(task, name, {"record": record.model_dump(mode="json")})
    return task


def context(task: Any, **state: Any) -> dict[str, Any]:
    return {"task": task, "ti": Instance(), "task_state_store": State(asked=task._compared(), **state)}


def tags_of(runtime: Runtime, task: Any) -> dict[str, str]:
    """What MLflow keeps of the training's run."""
    from pipelines.backends.mlflow_calls import connect

    tags: dict[str, str] = connect(runtime.settings.tracking_uri).get_run(task.trained["record"]["run_id"]).data.tags
    return tags


def answer(option: str, name: str | None = "Ada", login: str = "ada") -> dict[str, Any]:
    """What Airflow hands over: a person's answer, or, without a name, the default after the timeout."""
    user = {"id": login, "name": name} if name else None
    return {"chosen_options": [option], "params_input": {}, "responded_at": _AT, "responded_by_user": user}


def test_the_graph_of_a_use_case_whose_promotions_a_person_decides_is_the_golden_one(dag: Any) -> None:
    found = graph(dag)
    path = GOLDEN / "flights_manual_train.json"
    if os.environ.get("OVERNIGHT_GOLDEN") == "write":
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(path.read_text())


def test_the_dag_survives_serialization_and_says_who_decides(dag: Any) -> None:
    from airflow.serialization.serialized_objects import DagSerialization

    assert "no answer within 2 hours" in dag.doc_md
    assert "{" not in dag.doc_md
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    assert set(again.get_task("promotion.approve").operator_extra_link_dict) == {
        "Comparison",
        "Model card",
        "MLflow run",
    }


def test_only_a_spec_that_asks_somebody_loads_what_asks(flights_spec: UseCase, dag: Any) -> None:
    from usecase_dags import train

    assert "promotion.approve" in dag.task_ids
    assert "promotion.approve" not in train.build(flights_spec).task_ids


def test_nothing_that_data_or_a_spec_wrote_is_a_template(dag: Any) -> None:
    from airflow.sdk.definitions.xcom_arg import XComArg

    task = dag.get_task("promotion.approve")
    assert all(isinstance(getattr(task, name), XComArg) for name in task.template_fields)


def test_a_refused_challenger_is_nobodys_question(task: Any) -> None:
    from airflow.sdk.exceptions import AirflowSkipException

    refused = PASSED.gates[0].model_copy(update={"passed": False, "reason": "too weak"})
    task.gated = {"record": GateReport(passed=False, gates=(refused,)).model_dump(mode="json")}
    with pytest.raises(AirflowSkipException, match="too weak"):
        task.execute(context(task))


def test_a_yes_names_the_person_and_the_moment_and_is_a_tag_of_the_run(task: Any, runtime: Runtime) -> None:
    done = task.execute_complete(context(task), answer("Approve"))
    assert done["record"] == {"by": "Ada (ada)", "at": "2026-03-01T08:30:00+00:00", "approved": True}
    tags = tags_of(runtime, task)
    assert tags["overnight.approval"] == "approved by Ada (ada)"
    assert tags["overnight.approval_at"] == "2026-03-01T08:30:00+00:00"


@pytest.mark.parametrize(
    ("event", "by", "tag"),
    [
        (answer("Reject"), "Ada (ada)", "rejected by Ada (ada)"),
        (answer("Reject", "ada"), "ada", "rejected by ada"),
        (answer("Reject", None), "nobody", "rejected: nobody answered in 2 hours"),
    ],
)
def test_a_no_and_silence_skip_what_follows_and_say_so(
    task: Any, runtime: Runtime, event: dict[str, Any], by: str, tag: str
) -> None:
    from airflow.sdk.exceptions import DownstreamTasksSkipped

    running = context(task)
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        task.execute_complete(running, event)
    assert set(skipped.value.tasks) == {"promotion.register", "promotion.promote"}
    record = running["ti"].pushed["return_value"]["record"]
    assert (record["by"], record["approved"]) == (by, False)
    assert tags_of(runtime, task)["overnight.approval"] == tag


def test_an_answer_outlives_an_mlflow_that_is_down(
    task: Any, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from usecase_dags import approval

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    nobody_listens = Settings(project=REPOSITORY, home=tmp_path, mlflow_uri="http://127.0.0.1:9")
    down = Runtime(runtime.spec, nobody_listens, runtime.run)
    monkeypatch.setattr(approval, "open_runtime", lambda _: down)
    running = context(task)
    with pytest.raises(UnavailableError):
        task.execute_complete(running, answer("Approve"))
    monkeypatch.setattr(approval, "open_runtime", lambda _: runtime)
    retried = task.execute(running)  # a retry begins anew: asking again would need an API server, and fail here
    assert retried["record"]["by"] == "Ada (ada)"
    assert "answer" not in running["task_state_store"], "recorded: who clears the task is asked again"


def test_nobody_is_asked_about_another_comparison_than_the_form_shows(task: Any) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    running = context(task)
    task.evaluated = {"record": make_evaluation(champion_version=4).model_dump(mode="json")}
    with pytest.raises(AirflowFailException, match="trigger flights_train again"):
        task.execute(running)
    with pytest.raises(AirflowFailException, match="made anew while this task waited"):
        task.execute_complete(running, answer("Approve"))


def test_a_task_that_was_marked_by_hand_approves_nothing(dag: Any) -> None:
    register = dag.get_task("promotion.register").python_callable
    with pytest.raises(GateRefused, match="nobody approved it"):
        register({}, {}, {"record": PASSED.model_dump(mode="json")}, None)
