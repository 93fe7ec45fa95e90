"""Airflow in a home of its own, and the folders that Airflow puts on the path."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]

# Before anything imports Airflow: it writes into its home when it is imported.
_home = tempfile.TemporaryDirectory(prefix="overnight-airflow-")
os.environ["AIRFLOW_HOME"] = _home.name
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__API__HOST"] = "127.0.0.1"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{_home.name}/airflow.db"
os.environ["AIRFLOW__API_AUTH__JWT_SECRET"] = "a secret of the tests, " * 4
sys.path.insert(0, str(PROJECT / "dags"))


def load_plugin(name: str) -> ModuleType:
    """A file of plugins/, as Airflow loads it: by its path, under its bare stem."""
    spec = importlib.util.spec_from_file_location(name, PROJECT / "plugins" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def dags() -> dict[str, Any]:
    """Every DAG of the project by id."""
    from airflow.sdk import DAG

    found: dict[str, Any] = {}
    for path in sorted((PROJECT / "dags").glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"dag_file_{path.stem}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        found |= {value.dag_id: value for value in vars(module).values() if isinstance(value, DAG)}
    return found


@pytest.fixture(scope="session")
def empty_mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with its tables and nothing else: making them takes seconds, copying does not."""
    from pipelines.backends.mlflow_calls import connect

    folder = tmp_path_factory.mktemp("mlflow")
    connect(f"sqlite:///{folder / 'mlflow.db'}").search_experiments()
    return folder
