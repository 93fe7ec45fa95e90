"""The task graphs, held against golden files: a change of shape is meant, or it is noticed.

`OVERNIGHT_GOLDEN=write` in the environment writes them anew; look at the difference before you commit it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"
DAGS = [f"flights_{kind}" for kind in ("ingest", "score", "monitor", "train", "rollback")]


def graph(dag: Any) -> dict[str, Any]:
    """What matters of a DAG: tasks with what follows them, their rules, outlets and links; schedule and form."""
    return {
        "schedule": type(dag.timetable).__name__,
        "params": sorted(dag.params),
        "max_active_runs": dag.max_active_runs,
        "end_date": dag.end_date.isoformat() if dag.end_date else None,
        "tasks": {
            task.task_id: {
                "then": sorted(task.downstream_task_ids),
                "rule": str(task.trigger_rule),
                "outlets": [asset.name for asset in task.outlets],
                "links": [link.name for link in task.operator_extra_links],
            }
            for task in sorted(dag.tasks, key=lambda task: task.task_id)
        },
    }


@pytest.mark.parametrize("dag_id", DAGS)
def test_the_task_graph_is_the_golden_one(dag_id: str, dags: dict[str, Any]) -> None:
    found = graph(dags[dag_id])
    path = GOLDEN / f"{dag_id}.json"
    if os.environ.get("OVERNIGHT_GOLDEN") == "write":
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(path.read_text())


def test_a_bad_label_file_does_not_hold_up_the_night(dags: dict[str, Any]) -> None:
    dag = dags["flights_ingest"]
    before_announce = dag.get_task("announce").get_flat_relative_ids(upstream=True)
    assert {"rows.publish", "weather.publish", "planes.publish"} <= before_announce
    assert not {task for task in before_announce if task.startswith("labels.")}
