"""Nights that were made up for: they raise no alarm of their own and ask for no model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.records import Observations, RetrainDecision, RunInfo
from pipelines.runtime import Runtime
from tests.cases.champions import DAYS, NAME, Champions

#: Any night's champion is too old for this policy, and every label is enough.
EAGER = {
    "drift": {"window": 3, "min_rows": 10, "warn": 1e-9, "alarm": 1e-8, "report_rows": 20},
    "retraining": {"signals": ["inputs", "scores"], "share": 0.1, "min_labels": 1, "cooldown": 0, "max_age": 1},
}
WINDOW = DAYS[8:11]


@pytest.fixture
def eager(registered: Champions, tmp_path: Path) -> Champions:
    champions = registered.copy(tmp_path, **EAGER)
    champions.promote(1, "first")
    return champions


def run_of(champions: Champions, run_id: str, *, backfill: bool = False) -> Runtime:
    run = RunInfo(run_id=run_id, dag_id="runs", code_version="test", backfill=backfill)
    return Runtime.open(NAME, run=run, settings=champions.settings())


def score(runtime: Runtime, model: str = "champion") -> None:
    for plan in runtime.plan_scores(WINDOW, model):
        runtime.publish_scores(runtime.audit_scores(runtime.score_plan(plan)))


def look(champions: Champions, *, backfill: bool = False) -> tuple[Observations, RetrainDecision]:
    runtime = run_of(champions, "monitor", backfill=backfill)
    observations = runtime.observe(WINDOW[-1])
    return observations, runtime.decide(observations)


def test_a_backfill_that_looks_itself_never_says_yes_where_a_night_would(eager: Champions) -> None:
    score(run_of(eager, "catching up", backfill=True))
    assert eager.runtime().decisions() == [], "scoring decides nothing"
    _, answer = look(eager, backfill=True)
    assert not answer.retrain
    assert answer.reasons[-1] == "backfill: a backfill never asks for a retraining"


def test_nights_that_a_backfill_scored_are_seen_like_nights_that_ran(
    eager: Champions, registered: Champions, tmp_path: Path
) -> None:
    score(run_of(eager, "catching up", backfill=True))
    other = registered.copy(tmp_path / "other", **EAGER)
    other.promote(1, "first")
    score(run_of(other, "night"))
    made_up, ran = look(eager), look(other)
    assert made_up == ran
    assert ran[1].retrain, "this policy cries at any night, so that a no would be seen"


def test_scores_that_a_backfill_gave_an_older_model_are_no_news_of_the_champion(eager: Champions) -> None:
    score(run_of(eager, "catching up", backfill=True), "1")
    eager.promote(2, "second", over=1)
    score(run_of(eager, "again", backfill=True), "as-of")
    observations, answer = look(eager)
    assert [night.state for night in observations.window] == ["not_scored"] * 3
    assert observations.live_labels == 0
    levels = {signal.name: signal.level for signal in answer.signals}
    assert levels == {"inputs": "unknown", "scores": "unknown", "decay": "unknown", "age": "alarm"}
