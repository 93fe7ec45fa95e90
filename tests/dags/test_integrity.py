"""What every DAG of the project must have; the Astro command line's generated check asks for the same."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
KINDS = ("ingest", "score", "monitor", "train", "rollback")


def test_each_use_case_has_its_five_dags(dags: dict[str, Any]) -> None:
    names = [path.stem for path in (PROJECT / "include" / "use_cases").glob("*.yaml")]
    assert sorted(dags) == sorted(f"{name}_{kind}" for name in names for kind in KINDS)


def test_every_dag_says_what_it_does_and_what_to_do_when_it_fails(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert "**What it does.**" in dag.doc_md, dag.dag_id
        assert "**When it fails.**" in dag.doc_md, dag.dag_id
        assert "{" not in dag.doc_md, f"{dag.dag_id}: a name was not filled in"
        assert dag.description, dag.dag_id


def test_every_dag_has_tags_and_every_task_an_owner_and_retries(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert dag.tags, dag.dag_id
        for task in dag.tasks:
            assert task.owner not in ("", "airflow"), task.task_id
            assert task.retries >= 2, task.task_id
            assert timedelta(0) < task.retry_delay <= timedelta(minutes=1), task.task_id


def test_every_form_field_has_a_title_a_description_and_a_type(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        for name in dag.params:
            param = dag.params.get_param(name)
            assert param.schema.get("title"), f"{dag.dag_id}.{name}"
            assert param.description, f"{dag.dag_id}.{name}"
            assert param.schema.get("type"), f"{dag.dag_id}.{name}"


def test_tasks_lie_in_groups(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        assert any("." in task.task_id for task in dag.tasks), dag.dag_id


def test_nothing_runs_for_the_past_by_itself(dags: dict[str, Any]) -> None:
    assert all(dag.catchup is False for dag in dags.values())


_ASTRO = """
import os

real = os.getenv
os.getenv = lambda key, default=None: f"MOCKED_{key}" if key.startswith("OVERNIGHT") else real(key, default)
os.environ |= {f"OVERNIGHT_{name}": f"MOCKED_{name}" for name in ("HOME", "PROJECT", "LANDING", "MLFLOW_URI", "WARM")}
from pathlib import Path

from airflow.dag_processing.dagbag import BundleDagBag

# What Airflow's own DAG processor makes of the folder.
bag = BundleDagBag(dag_folder="dags", bundle_path=Path("dags").resolve(), bundle_name="dags-folder")
assert not bag.import_errors, bag.import_errors
assert all(dag.tags and dag.default_args["retries"] >= 2 for dag in bag.dags.values())
print(" ".join(sorted(bag.dags)))
"""


def test_airflow_finds_the_dags_and_no_import_error_even_with_a_mocked_environment(
    tmp_path: Path, dags: dict[str, Any]
) -> None:
    env = {
        **os.environ,
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/a",
    }
    done = subprocess.run(
        [sys.executable, "-c", _ASTRO], check=False, cwd=PROJECT, env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1].split() == sorted(dags)


@pytest.mark.parametrize("path", sorted((PROJECT / "plugins").glob("*.py")), ids=lambda path: path.name)
def test_a_plugin_file_shadows_no_library(path: Path) -> None:
    # Airflow imports each file under plugins/ as a top-level module by its bare stem.
    assert path.stem.startswith("overnight_") or path.stem == "airflow_local_settings"


def test_plugins_lie_flat() -> None:
    assert not [path for path in (PROJECT / "plugins").rglob("*.py") if path.parent != PROJECT / "plugins"]
