"""The audit of staged scores: what a row is decided to be must follow from its own scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from pipelines.errors import QuarantinedError
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import AuditedScores, ModelRef, Scored
from pipelines.spec import UseCase
from pipelines.steps.inputs import heads
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.score_audit import audit_scores
from tests.contracts.stores import RUN, audit, open_store

DAY = "2024-01-01"


def use_case(task: str) -> UseCase:
    label: dict[str, Any] = {"column": "y", "task": task}
    label |= {"binary": {"positive": {"above": 0}}, "multiclass": {"classes": ["low", "high"]}, "regression": {}}[task]
    columns = {"id": {"type": "string"}, "x": {"type": "float"}, "y": {"type": "float"}}
    table = {"path": "rows/{partition}.csv", "key": ["id"], "columns": columns}
    if task == "multiclass":
        table = {**table, "columns": {**columns, "y": {"type": "string"}}}
    return UseCase.model_validate(
        {
            "name": "uc",
            "title": "Use case",
            "description": "A small table.",
            "owner": "tests",
            "schedule": "0 2 * * *",
            "monitor_schedule": "0 6 * * *",
            "tables": {"rows": table, "labels": table},
            "label": label,
            "features": {"numeric": ["x"]},
            "gates": {"metric": {"binary": "auc", "multiclass": "accuracy", "regression": "rmse"}[task], "bound": 0.5},
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> SnapshotStore:
    made = open_store("delta", tmp_path)
    rows = pl.DataFrame({"id": ["a", "b", "c"], "x": [1.0, 2.0, 3.0], "y": [1.0, 0.0, 1.0]})
    staged = made.stage("rows", [Draft(partition=DAY, frame=rows)], RUN)
    made.publish("rows", staged, [audit(part) for part in staged], RUN)
    return made


def audited(store: SnapshotStore, task: str, threshold: float | None = None, **columns: Any) -> AuditedScores:
    spec = use_case(task)
    floats = {name: pl.Float32 for name in columns if name.startswith("score")}
    frame = pl.DataFrame({"id": ["a", "b", "c"], **columns}, schema_overrides=floats).with_columns(model_version=1)
    staged = store.stage(PREDICTIONS, [Draft(partition=DAY, frame=frame)], RUN)
    model = ModelRef(name="uc", version=1, digest="d", run_id="r")
    told = {"rows_in": {DAY: 3}, "fingerprints": {DAY: "f"}, "unseen": {DAY: {}}, "threshold": threshold}
    inputs = tuple(heads(spec, store, ["rows"]).values())
    return audit_scores(spec, store, Scored(model=model, inputs=inputs, staged=staged, run=RUN, **told))


def test_a_score_at_the_threshold_is_positive_and_the_one_below_is_not(store: SnapshotStore) -> None:
    scores = [0.25, 0.3, 0.7]
    cut = float(pl.Series([0.3], dtype=pl.Float32).cast(pl.Float64).item())
    assert audited(store, "binary", cut, score=scores, prediction=[False, True, True])
    assert audited(store, "binary", 0.7, score=scores, prediction=[False, False, False]), "float32 has no 0.7"


@pytest.mark.parametrize("decided", [[True, True, True], [False, False, True], [False, True, None]])
def test_decisions_that_do_not_follow_from_the_scores_are_quarantined(
    store: SnapshotStore, decided: list[bool | None]
) -> None:
    with pytest.raises(QuarantinedError, match="decisions_match_scores 1 decided otherwise"):
        audited(store, "binary", 0.3, score=[0.25, 0.5, 0.75], prediction=decided)
    assert store.head(PREDICTIONS) is None


def test_of_classes_the_highest_is_decided_and_of_equal_ones_the_first(store: SnapshotStore) -> None:
    scores = {"score_low": [0.75, 0.25, 0.5], "score_high": [0.25, 0.75, 0.5]}
    assert audited(store, "multiclass", **scores, prediction=["low", "high", "low"])
    with pytest.raises(QuarantinedError, match="decisions_match_scores 2 decided otherwise"):
        audited(store, "multiclass", **scores, prediction=["low", "low", "high"])


def test_a_regression_decides_nothing(store: SnapshotStore) -> None:
    assert audited(store, "regression", score=[1.0, 2.0, 3.0])
