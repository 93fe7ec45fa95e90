"""Parsing a DAG file is light: nothing heavy is loaded, and it is quick."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "mlflow",
    "great_expectations",
    "evidently",
    "onnxruntime",
    "pandas",
    "polars",
    "deltalake",
    "lightgbm",
    "sklearn",
    "numpy",
)
_PARSE = """
import json, runpy, sys, time
sys.path.insert(0, "dags")
begun = time.process_time()
import airflow.sdk
imported = time.process_time()
runpy.run_path(sys.argv[1])
share = (time.process_time() - imported) / (imported - begun)
print(json.dumps({"share": share, "modules": sorted(sys.modules)}))
"""


@pytest.mark.parametrize("path", sorted((PROJECT / "dags").glob("*.py")), ids=lambda path: path.name)
def test_a_dag_file_parses_in_less_than_its_airflow_imports_in_and_loads_no_heavy_library(
    path: Path, tmp_path: Path
) -> None:
    env = {**os.environ, "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", _PARSE, str(path)],
        check=False,
        cwd=PROJECT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.strip().splitlines()[-1])
    assert not set(HEAVY) & set(found["modules"])
    assert "pipelines.runtime" not in found["modules"]
    # Not in seconds: a machine that others use takes several times as long for both.
    assert found["share"] < 1, "processor time of the parse against importing airflow.sdk"


def test_a_task_that_starts_builds_only_its_own_dag(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.definitions.context import _AIRFLOW_PARSING_CONTEXT_DAG_ID
    from usecase_dags import build

    every = set(build("flights"))
    assert len(every) == 5
    for dag_id in every:
        monkeypatch.setenv(_AIRFLOW_PARSING_CONTEXT_DAG_ID, dag_id)
        assert set(build("flights")) == {dag_id}
    monkeypatch.setenv(_AIRFLOW_PARSING_CONTEXT_DAG_ID, "another_dag")
    assert set(build("flights")) == every
