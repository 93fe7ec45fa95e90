"""The training DAG's `search`: nothing at all unless the form or the spec asks for it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipelines.spec import UseCase, load_spec

PROJECT = Path(__file__).resolve().parents[2]

#: Executes the task as Airflow would, in a process that has imported nothing yet.
_EXECUTE = """
import json, sys
sys.path.insert(0, "dags")
from usecase_dags import train
from pipelines.spec import load_spec
from pathlib import Path
train.param = {"search": False}.get
task = train.build(load_spec(Path("include/use_cases/flights.yaml"))).get_task("challenger.search")
task.op_args = [{"record": {"digest": "d"}}]
before = set(sys.modules)
result = task.execute({})
print(json.dumps({"result": result, "added": sorted(set(sys.modules) - before), "modules": sorted(sys.modules)}))
"""


def test_a_search_that_nobody_asked_for_hands_the_training_set_on_and_imports_nothing_heavy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _EXECUTE],
        check=False,
        cwd=PROJECT,
        env={**os.environ, "AIRFLOW_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert found["result"]["record"] == {"digest": "d"}
    assert found["result"]["imported"] == 0
    assert found["added"] in ([], ["pipelines.warm"])
    assert not {"optuna", "torch", "mlflow", "polars", "pipelines.runtime"} & set(found["modules"])


def _form(spec: UseCase) -> Any:
    from usecase_dags.train import build

    return build(spec).params.get_param("search")


def test_the_form_has_a_switch_that_stands_as_the_spec_says() -> None:
    spec = load_spec(PROJECT / "include" / "use_cases" / "flights.yaml")
    for enabled in (False, True):
        search = spec.training.search.model_copy(update={"enabled": enabled})
        changed = spec.model_copy(update={"training": spec.training.model_copy(update={"search": search})})
        switch = _form(changed)
        assert switch.value is enabled
        assert switch.schema["type"] == "boolean"
        assert switch.schema["title"] == "Search"
        assert switch.description


def test_a_run_that_asks_for_a_search_searches_on_its_training_set(monkeypatch: Any) -> None:
    from usecase_dags import train

    from pipelines.records import TrainingSet
    from tests.unit.steps.test_search import SET

    class Runtime:
        def search(self, training_set: TrainingSet) -> TrainingSet:
            assert training_set == SET
            return training_set.model_copy(update={"as_of": "searched"})

    monkeypatch.setattr(train, "param", {"search": True}.get)
    monkeypatch.setattr(train, "open_runtime", lambda _: Runtime())
    task = train.build(load_spec(PROJECT / "include" / "use_cases" / "flights.yaml")).get_task("challenger.search")
    task.op_args = [{"record": SET.model_dump(mode="json")}]
    assert task.execute({})["record"]["as_of"] == "searched"
