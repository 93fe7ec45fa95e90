"""One spec -> the five Airflow DAGs of a use case: ingest, score, monitor, train, rollback.

The only room that knows Airflow. Parsing loads the spec and `airflow.sdk`, nothing heavy: what a task needs is
imported when it runs (see `pipelines.warm`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import get_parsing_context

from pipelines.spec import load_spec
from usecase_dags import ingest, monitor, rollback, score, train
from usecase_dags.context import PROJECT

if TYPE_CHECKING:
    from airflow.sdk import DAG

__all__ = ["build"]

_KINDS = {"ingest": ingest, "score": score, "monitor": monitor, "train": train, "rollback": rollback}


def build(name: str, project: Path = PROJECT) -> dict[str, DAG]:
    """The DAGs of one use case by id, for a DAG file's globals.

    A task reads its DAG file again when it starts, and Airflow then says for which DAG: only that one is built.

    Args:
        name: a file of `include/use_cases/`, without its ending.
        project: the folder that holds `include/`; the one that holds `dags/` when not given. The environment is not
            asked, so that every process that parses the file sees the same DAGs.

    Raises:
        SpecError: the spec is not as it should be; Airflow shows it as this file's import error.
    """
    spec = load_spec(project / "include" / "use_cases" / f"{name}.yaml")
    wanted = get_parsing_context().dag_id
    chosen = [kind for kind in _KINDS if wanted == f"{spec.name}_{kind}"] or list(_KINDS)
    made = [_KINDS[kind].build(spec) for kind in chosen]
    return {dag.dag_id: dag for dag in made}
