"""`trainer: sagemaker`: the task that starts a job, waits in the triggerer, and collects what a container trained."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipelines.records import JobRef, RunInfo, TrainingSet
from pipelines.runtime import Runtime
from tests.dags.conftest import PROJECT, load_plugin
from tests.dags.test_graphs import graph
from tests.servers.container import Container
from tests.servers.sagemaker import Aws, _moto, aws
from tests.unit.sagemaker.conftest import job_settings, job_spec
from tests.unit.training.conftest import ROWS, write

__all__ = ["_moto", "aws"]


@pytest.fixture(autouse=True)
def _plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Airflow does: plugins/ is on the path, in workers and in the triggerer."""
    monkeypatch.syspath_prepend(str(PROJECT / "plugins"))


@pytest.fixture
def runtime(aws: Aws, tmp_path: Path, empty_mlflow: Path) -> Runtime:
    shutil.copytree(empty_mlflow, tmp_path / "home" / "mlflow")
    settings = job_settings(aws, home=tmp_path / "home", sagemaker_wake=0.2, sagemaker_poll=0.05)
    return Runtime(job_spec(), settings, RunInfo(run_id="night", dag_id="toy_train"), aws=aws.session())


@pytest.fixture
def task(runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The task, on a training set that was built before."""
    from usecase_dags import remote

    monkeypatch.setattr(remote, "open_runtime", lambda _: runtime)
    task = remote.TrainRemotely(task_id="train", spec=runtime.spec, built=None)
    task.built = {"record": training_set(tmp_path / "set").model_dump(mode="json")}
    return task


def training_set(folder: Path) -> TrainingSet:
    import pyarrow.parquet as pq

    write(folder, "binary")
    sample = pq.read_table(folder / "train.parquet").slice(0, 50)
    pq.write_table(sample.select(["wide", "narrow", "gaps", "colour", "shape"]), folder / "reference_sample.parquet")
    days = ("2024-01-01", "2024-01-01")
    return TrainingSet(
        use_case="toy_binary",
        folder=str(folder),
        as_of="2024-01-01",
        snapshots=(),
        train=days,
        validation=days,
        holdout=days,
        rows=dict(ROWS),
        digest="0" * 64,
    )


def deferred(call: Any) -> Any:
    from airflow.sdk.exceptions import TaskDeferred

    with pytest.raises(TaskDeferred) as caught:
        call()
    return caught.value


def fired(trigger: Any) -> dict[str, Any]:
    async def first() -> dict[str, Any]:
        async for event in trigger.run():
            return dict(event.payload)
        raise AssertionError("it fires")

    return asyncio.run(asyncio.wait_for(first(), 30))


def test_the_graph_of_a_use_case_that_trains_on_sagemaker_is_the_golden_one() -> None:
    import json

    from usecase_dags import train

    found = graph(train.build(job_spec()))
    path = Path(__file__).parent / "golden" / "toy_sagemaker_train.json"
    if os.environ.get("OVERNIGHT_GOLDEN") == "write":
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(path.read_text())


def test_the_dag_survives_serialization_and_says_what_killing_the_task_does() -> None:
    from airflow.serialization.serialized_objects import DagSerialization
    from usecase_dags import train

    dag = train.build(job_spec())
    assert "stops the job" in dag.doc_md
    again = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    task = again.get_task("challenger.train")
    assert set(task.operator_extra_link_dict) == {"MLflow run", "Training job"}
    assert task.retries == 2


def test_the_task_submits_waits_without_a_slot_passes_the_log_on_and_collects(
    task: Any, aws: Aws, runtime: Runtime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import overnight_sagemaker

    monkeypatch.setattr(overnight_sagemaker, "_trainer", lambda: runtime.remote_trainer)
    first = deferred(lambda: task.execute({}))
    (name,) = aws.jobs
    assert first.method_name == "resume"
    event = fired(first.trigger)
    assert event == {"job": name, "over": False}, "it fires at the wake-up time with the job still running"
    second = deferred(lambda: task.resume({}, event, **first.kwargs))
    assert second.kwargs["waiting"]["begun"] == first.kwargs["waiting"]["begun"], "the wait is counted from the submit"
    container = Container(aws, name, tmp_path / "opt-ml")
    code = container.run()
    assert code == 0, container.output
    container.finish(code)
    event = fired(second.trigger)
    assert event["over"] is True
    done = task.resume({}, event, **second.kwargs)
    trained = done["record"]
    assert (Path(trained["folder"]) / "digests.json").is_file()
    (run,) = runtime.registry.trainings()
    assert run.run_id == trained["run_id"]
    assert run.tags["overnight.job"] == name
    assert run.metrics["student_validation"] > 0, "the job's progress lines are the run's curves"
    monkeypatch.setattr("pipelines.warm.load", {"train_remotely": 7}.__getitem__)
    again = task.execute({})
    assert again["record"]["digest"] == trained["digest"], "a repeat finds the sealed artifact"
    assert again["imported"] == 7, "what this process still had to import, as it was counted"
    assert len(aws.requests) == 1


def test_a_retry_finds_the_job_again_and_a_failed_job_is_followed_by_the_next_attempt(task: Any, aws: Aws) -> None:
    from pipelines.errors import UnavailableError

    first = deferred(lambda: task.execute({}))
    (name,) = aws.jobs
    deferred(lambda: task.execute({}))
    assert list(aws.jobs) == [name]
    aws.put(name, "Failed", "Failed", "CapacityError: no ml.m5.large")
    with pytest.raises(UnavailableError, match="CapacityError"):
        task.resume({}, {}, **first.kwargs)
    deferred(lambda: task.execute({}))
    assert list(aws.jobs) == [name, name.removesuffix("1") + "2"]


def test_what_a_retry_cannot_help_fails_the_task_at_once(task: Any, aws: Aws) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    first = deferred(lambda: task.execute({}))
    (name,) = aws.jobs
    aws.put(name, "Failed", "Failed", "AlgorithmError: TrainingError: one class only, exit code: 1")
    with pytest.raises(AirflowFailException, match="one class only"):
        task.resume({}, {}, **first.kwargs)


def test_a_task_that_was_cleared_waits_for_its_stopped_job_and_then_makes_the_next_attempt(
    task: Any, aws: Aws, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    import overnight_sagemaker

    monkeypatch.setattr(overnight_sagemaker, "_trainer", lambda: runtime.remote_trainer)
    first = deferred(lambda: task.execute({}))
    (name,) = aws.jobs
    asyncio.run(first.trigger.on_kill())
    assert aws.jobs[name].training_job_status == "Stopping"
    second = deferred(lambda: task.execute({}))
    assert list(aws.jobs) == [name]
    aws.put(name, "Stopped", "Stopped")
    third = deferred(lambda: task.resume({}, {}, **second.kwargs))
    assert list(aws.jobs) == [name, name.removesuffix("1") + "2"]
    assert third.kwargs["waiting"]["remote"]["job"]["attempt"] == 2


def test_a_wait_that_outlasts_all_that_the_job_may_take_is_an_error(task: Any, aws: Aws) -> None:
    from pipelines.errors import UnavailableError

    first = deferred(lambda: task.execute({}))
    assert first.timeout.total_seconds() > 60
    waiting = {**first.kwargs["waiting"], "begun": time.time() - 3600 - 1801}  # 60 minutes of spot and 30 of margin
    with pytest.raises(UnavailableError, match="not over"):
        task.resume({}, {}, waiting)
    waiting["begun"] += 600
    deferred(lambda: task.resume({}, {}, waiting))


def test_the_trigger_is_rebuilt_by_another_triggerer_with_the_same_moment_to_wake() -> None:
    plugin = load_plugin("overnight_sagemaker")
    job = JobRef(name="toy-1", key="k", attempt=1).model_dump(mode="json")
    trigger = plugin.JobTrigger(job=job, wake=123.0, poll=1.0)
    path, arguments = trigger.serialize()
    assert path == "overnight_sagemaker.JobTrigger"
    assert plugin.JobTrigger(**arguments).serialize() == trigger.serialize()


def test_a_triggerer_imports_the_trigger_without_the_dag_folder(tmp_path: Path) -> None:
    code = (
        "from airflow.sdk._shared.module_loading import import_string;"
        "import sys; found = import_string('overnight_sagemaker.JobTrigger');"
        "assert 'usecase_dags' not in sys.modules and not any(p.endswith('/dags') for p in sys.path);"
        "print(found.__name__)"
    )
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path), "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins")}
    env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{tmp_path}/a.db"
    env.pop("PYTHONPATH", None)
    code = "import airflow.settings; airflow.settings.prepare_syspath_for_config_and_plugins();" + code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().endswith("JobTrigger")


def test_a_trigger_that_cannot_look_wakes_the_task_instead_of_failing(monkeypatch: pytest.MonkeyPatch) -> None:
    import overnight_sagemaker

    def broken() -> Any:
        raise RuntimeError("no network")

    monkeypatch.setattr(overnight_sagemaker, "_trainer", broken)
    job = JobRef(name="toy-1", key="k", attempt=1).model_dump(mode="json")
    trigger = overnight_sagemaker.JobTrigger(job=job, wake=time.time() + 60, poll=0.01)
    assert fired(trigger) == {"job": "toy-1", "over": False}


def test_an_airflow_connection_gives_the_credentials_where_the_settings_name_one(
    runtime: Runtime, aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from usecase_dags import remote

    monkeypatch.setenv("AIRFLOW_CONN_TRAINING_AWS", "aws://a-key-id:a-secret@/?region_name=eu-central-1")
    named = job_settings(aws, home=tmp_path, sagemaker_credentials="training_aws")
    monkeypatch.setattr(remote, "open_runtime", lambda spec: Runtime(spec, named, runtime.run))
    session = remote.remote_runtime(runtime.spec)._aws
    assert session.get_credentials().access_key == "a-key-id"
    monkeypatch.setattr(remote, "open_runtime", lambda _: runtime)
    assert remote.remote_runtime(runtime.spec) is runtime
