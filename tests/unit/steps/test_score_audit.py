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


GOOD: dict[str, Any] = {
    "score": [1.0, 2.0, 3.0],
    "low": [0.5, 2.0, -1.0],
    "high": [1.5, 2.0, 3.0],
    "reason_1": ["x", "x", None],
    "reason_1_effect": [-0.5, 0.25, None],
    "reason_2": ["y", None, None],
    "reason_2_effect": [0.5, None, None],
}


def with_extras(store: SnapshotStore, monkeypatch: pytest.MonkeyPatch, **changed: Any) -> AuditedScores:
    """Audits scores with intervals and reasons, some columns of which are others."""
    plain = use_case("regression")
    more = {
        "scoring": plain.scoring.model_copy(update={"interval": 0.9, "reasons": 2}),
        "features": plain.features.model_copy(update={"numeric": ("x", "y")}),
    }
    monkeypatch.setattr(f"{__name__}.use_case", lambda _: plain.model_copy(update=more))
    return audited(store, "regression", **{**GOOD, **changed})


def test_intervals_that_hold_their_scores_and_reasons_that_are_features_pass(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    (report,) = with_extras(store, monkeypatch).validated.reports
    assert {"interval_holds_score", "reasons"} <= {check.name for check in report.checks}


@pytest.mark.parametrize(
    "changed",
    [
        {"low": [1.5, 2.0, -1.0]},
        {"high": [1.5, 1.0, 3.0]},
        {"low": [0.5, None, -1.0]},
        {"high": [float("inf"), 2.0, 3.0]},
        {"low": [float("nan"), 2.0, 3.0]},
    ],
)
def test_an_interval_beside_its_score_or_without_an_end_is_quarantined(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    with pytest.raises(QuarantinedError, match="interval_holds_score 1 without"):
        with_extras(store, monkeypatch, **changed)
    assert store.head(PREDICTIONS) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"reason_1": ["id", "x", None]},  # no feature
        {"reason_2": ["x", None, None]},  # twice
        {"reason_2": [None, None, None]},  # an effect of nothing
        {"reason_1_effect": [-0.5, None, None]},  # a reason without an effect
        {"reason_1_effect": [-0.5, float("nan"), None]},
        {"reason_2_effect": [float("inf"), None, None]},
        {"reason_2_effect": [0.75, None, None]},  # greater than the first
        {"reason_2": ["y", None, "y"], "reason_2_effect": [0.5, None, 0.1]},  # a second without a first
    ],
)
def test_reasons_that_are_none_are_quarantined(
    store: SnapshotStore, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    with pytest.raises(QuarantinedError, match="reasons 1 not of features"):
        with_extras(store, monkeypatch, **changed)
