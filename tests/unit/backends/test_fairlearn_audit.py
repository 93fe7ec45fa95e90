"""Rates by group: the same as by hand, and as Fairlearn gives them on the rows themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from fairlearn.metrics import demographic_parity_ratio, equalized_odds_difference
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.backends.fairlearn_audit import Fairlearn
from pipelines.records import Fairness, Group

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: (group, label, decision) and how many rows.
HAND = {
    ("a", 1, 1): 6, ("a", 1, 0): 2, ("a", 0, 1): 2, ("a", 0, 0): 10,
    ("b", 1, 1): 3, ("b", 1, 0): 3, ("b", 0, 1): 1, ("b", 0, 0): 13,
    (None, 0, 0): 3,
}  # fmt: skip


def audit(cells: dict[tuple[str | None, int, int], int], min_rows: int = 1) -> Fairness:
    """The audit of so many rows of each kind, shuffled."""
    values: list[str | None] = list(dict.fromkeys(group for group, _, _ in cells))
    rows = [(values.index(group), label, decision) for (group, label, decision), n in cells.items() for _ in range(n)]
    codes, labels, decisions = np.random.default_rng(0).permutation(np.array(rows)).T
    return Fairlearn().audit("colour", values, codes, labels.astype(bool), decisions.astype(bool), min_rows)


def test_rates_are_those_of_a_computation_by_hand() -> None:
    found = audit(HAND, min_rows=20)
    assert found.column == "colour"
    assert found.groups == (
        Group(value="a", rows=20, selection_rate=0.4, true_positive_rate=0.75, false_positive_rate=2 / 12, judged=True),
        Group(value="b", rows=20, selection_rate=0.2, true_positive_rate=0.5, false_positive_rate=1 / 14, judged=True),
        Group(value=None, rows=3, selection_rate=0, true_positive_rate=None, false_positive_rate=0, judged=False),
    )
    assert found.selection_ratio == pytest.approx(0.5)
    assert found.odds_difference == pytest.approx(0.25), "of true positives: those of false positives are nearer"


def test_a_group_of_too_few_rows_is_listed_and_counts_in_neither_figure() -> None:
    judged, listed = audit(HAND, min_rows=3), audit(HAND, min_rows=4)
    assert judged.selection_ratio == 0, "nobody of the null group is selected"
    assert listed.selection_ratio == pytest.approx(0.5)
    assert [group.rows for group in judged.groups] == [group.rows for group in listed.groups]


@pytest.mark.parametrize("min_rows", [21, 4])
def test_fewer_than_two_judged_groups_give_no_figure(min_rows: int) -> None:
    alone = HAND if min_rows == 21 else {kind: n for kind, n in HAND.items() if kind[0] != "b"}
    found = audit(alone, min_rows=min_rows)
    assert (found.selection_ratio, found.odds_difference) == (None, None)


def test_nobody_selected_is_the_same_for_all_and_odds_that_no_two_groups_have_are_none() -> None:
    found = audit({("a", 1, 0): 5, ("b", 0, 0): 5})
    assert found.selection_ratio == 1
    assert found.odds_difference is None, "one group has positives alone, the other negatives alone"


def test_odds_that_only_one_of_both_labels_has_are_those_of_that_label() -> None:
    found = audit({("a", 0, 1): 1, ("a", 0, 0): 3, ("b", 0, 1): 3, ("b", 0, 0): 1})
    assert found.odds_difference == pytest.approx(0.5)
    assert {group.true_positive_rate for group in found.groups} == {None}


def rows(seed: int, count: int, groups: int) -> tuple[NDArray[np.int64], NDArray[np.bool_], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, groups, count)
    return codes, rng.random(count) < 0.2 + 0.05 * codes, rng.random(count) < 0.3 + 0.04 * codes


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(100, 400), groups=st.integers(2, 5))
def test_both_figures_are_fairlearns_own_on_the_rows(seed: int, count: int, groups: int) -> None:
    codes, labels, decisions = rows(seed, count, groups)
    for label in (0, 1):  # every group holds both labels: where one lacks a label, Fairlearn says that its rate is 0
        codes, labels = np.append(codes, range(groups)), np.append(labels, [label] * groups)
        decisions = np.append(decisions, [True] * groups)
    found = Fairlearn().audit("g", [str(i) for i in range(groups)], codes, labels, decisions, 1)
    told = {"y_true": labels, "y_pred": decisions, "sensitive_features": codes}
    assert found.selection_ratio == pytest.approx(demographic_parity_ratio(**told), abs=1e-12)
    assert found.odds_difference == pytest.approx(equalized_odds_difference(**told), abs=1e-12)


def test_fairlearn_is_given_no_more_than_four_rows_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    import fairlearn.metrics as theirs

    given_rows = []

    def watched(**told: object) -> object:
        given_rows.append(len(told["y_true"]))  # type: ignore[arg-type]
        return frame(**told)

    frame = theirs.MetricFrame
    monkeypatch.setattr(theirs, "MetricFrame", watched)
    codes, labels, decisions = rows(1, 50_000, 5)
    Fairlearn().audit("g", [str(i) for i in range(5)], codes, labels, decisions, 1)
    assert given_rows == [20], "so that the time is that of the groups, not of the rows"
