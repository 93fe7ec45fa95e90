"""The gate of fairness: what it judges, what it only lists, and what it says."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipelines.policies.gates import RULES
from pipelines.records import Evaluation, Fairness, Gate, Group, Holdout, Scorecard
from pipelines.spec import UseCase


def use_case(**fairness: Any) -> UseCase:
    columns = {"id": {"type": "int"}, "x": {"type": "float"}, "y": {"type": "float"}, "region": {"type": "string"}}
    return UseCase.model_validate(
        {
            "name": "loans",
            "title": "Loans",
            "description": "Loans",
            "owner": "team",
            "schedule": "0 2 * * *",
            "monitor_schedule": "0 6 * * *",
            "tables": {"rows": {"path": "rows/{partition}.csv", "columns": columns, "key": ["id"]}},
            "label": {"table": "rows", "column": "y", "task": "binary", "positive": {"above": 0}},
            "features": {"numeric": ["x"]},
            "gates": {"metric": "auc", "bound": 0.6, "fairness": {"columns": ["region"], **fairness}},
        }
    )


def group(
    value: str | None, selection: float, tpr: float | None = 0.5, fpr: float | None = 0.1, rows: int = 200
) -> Group:
    return Group(
        value=value,
        rows=rows,
        selection_rate=selection,
        true_positive_rate=tpr,
        false_positive_rate=fpr,
        judged=rows >= 100,
    )


def measured(
    *groups: Group, ratio: float | None = 1.0, difference: float | None = 0.0, column: str = "region"
) -> Fairness:
    return Fairness(column=column, groups=groups, selection_ratio=ratio, odds_difference=difference)


def judge(*found: Fairness, errors: dict[str, str] | None = None, none: bool = False, **asked: Any) -> Gate:
    evaluation = Evaluation(
        use_case="loans",
        metric="auc",
        greater_is_better=True,
        holdout=Holdout(path="h", partitions=("a", "b"), as_of="b", snapshots=(), rows=400, digest="d"),
        challenger=Scorecard(model="challenger", rows=400, metrics={"auc": 0.7}),
        champion=None,
        champion_version=None,
        others=(),
        fairness=None if none else found,
        errors=errors or {},
    )
    return RULES["fairness"](evaluation, use_case(**asked))


NORTH, SOUTH = group("north", 0.2, 0.6, 0.1), group("south", 0.1, 0.4, 0.05)


def test_without_a_sensitive_column_it_passes_and_says_so() -> None:
    for gate in (judge(columns=[]), judge(none=True, columns=[])):
        assert gate.passed
        assert gate.reason == "no sensitive column is declared"


def test_what_was_not_measured_is_refused_with_the_reason() -> None:
    gate = judge(none=True, errors={"fairness": "SpecError: region: 5000 distinct values"})
    assert not gate.passed
    assert gate.reason == "not measured: SpecError: region: 5000 distinct values"
    assert not judge(none=True).passed
    assert judge(measured(NORTH, SOUTH, column="other")).reason == "region: not measured"


def test_a_refusal_names_the_column_the_worst_groups_and_the_numbers() -> None:
    gate = judge(measured(NORTH, SOUTH, group("west", 0.15), ratio=0.5, difference=0.2))
    assert not gate.passed
    assert gate.reason == (
        "region: selection ratio 0.5000 (south 0.1000, north 0.2000), at least 0.8000 is asked for; "
        "odds difference 0.2000 of true positives (south 0.4000, north 0.6000), at most 0.1000 is accepted"
    )


def test_the_odds_that_are_told_are_those_that_are_further_apart() -> None:
    wide = group("east", 0.2, 0.5, 0.4)
    assert "of false positives (north 0.1000, east 0.4000)" in judge(measured(NORTH, wide, difference=0.3)).reason


@pytest.mark.parametrize(
    ("ratio", "difference", "passes"),
    [(0.8, 0.1, True), (0.7999, 0.1, False), (0.8, 0.1001, False), (0.1 + 0.7, 0.3 - 0.2, True), (1.0, 0.0, True)],
)
def test_both_bounds_must_hold_and_a_bound_itself_is_within(ratio: float, difference: float, passes: bool) -> None:
    assert judge(measured(NORTH, SOUTH, ratio=ratio, difference=difference)).passed is passes


def test_the_bounds_are_the_specs() -> None:
    found = measured(NORTH, SOUTH, ratio=0.5, difference=0.2)
    assert judge(found, min_selection_ratio=0.5, max_odds_difference=0.2).passed
    assert not judge(found, min_selection_ratio=0.5).passed
    assert not judge(found, max_odds_difference=0.2).passed


def test_small_groups_are_listed_not_judged() -> None:
    tiny = [group(f"tiny{i}", 0.9, rows=i + 1) for i in range(7)]
    gate = judge(measured(NORTH, SOUTH, *tiny, ratio=0.9, difference=0.05))
    assert gate.passed
    named = "tiny0 1, tiny1 2, tiny2 3, tiny3 4, tiny4 5 and 2 more"
    assert gate.reason.endswith(f"; not judged, fewer than 100 rows: {named}")
    assert "tiny" not in gate.reason.partition("; not judged")[0]


def test_fewer_than_two_groups_to_compare_are_a_refusal() -> None:
    gate = judge(measured(NORTH, group(None, 0.1, rows=5), ratio=None, difference=None))
    assert not gate.passed
    assert gate.reason == (
        "region: 1 of two groups of 100 rows or more, to be compared; not judged, fewer than 100 rows: null 5"
    )


@pytest.mark.parametrize(("ratio", "difference"), [(None, 0.0), (1.0, None), (math.nan, 0.0), (1.0, math.nan)])
def test_a_figure_that_is_not_there_is_a_refusal(ratio: float | None, difference: float | None) -> None:
    gate = judge(measured(NORTH, SOUTH, ratio=ratio, difference=difference))
    assert not gate.passed
    assert gate.reason.startswith("region: selection ratio ")


def test_every_column_is_judged_and_every_reason_kept() -> None:
    spec = use_case(columns=["region", "id"])
    assert spec.gates.fairness.columns == ("region", "id")
    gate = judge(
        measured(NORTH, SOUTH, ratio=0.9, difference=0.05),
        measured(NORTH, SOUTH, ratio=0.1, difference=0.05, column="id"),
        columns=["region", "id"],
    )
    assert not gate.passed
    assert "region: selection ratio 0.9000" in gate.reason
    assert "id: selection ratio 0.1000" in gate.reason
