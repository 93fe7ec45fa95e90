"""Intervals hold the label as often as they say, on rows that nobody saw, and more evenly than one width does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pipelines.intervals import Intervals
from pipelines.records import Coverage, Scorecard
from pipelines.scoring.engine import Engine
from pipelines.spec import LEVELS
from pipelines.training import conformal
from pipelines.training.entry import run
from pipelines.training.job import Job

from .conftest import TASKS, Trained, make_spec, write

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = tuple[NDArray[np.float32], NDArray[np.float32]]


def rows(count: int, seed: int) -> Rows:
    """Scores and labels whose errors grow with the score, far more upwards than downwards."""
    dice = np.random.default_rng(seed)
    scores = dice.uniform(1, 10, count).astype(np.float32)
    return scores, (scores + scores * (dice.exponential(1, count) - 0.7)).astype(np.float32)


def binomial(level: float, fitted: int, fresh: int) -> float:
    """Four standard deviations of a coverage: of the fresh rows, and of the rows that it was fitted on."""
    return 4 * (level * (1 - level) * (1 / fitted + 1 / fresh)) ** 0.5


@pytest.mark.parametrize("seed", range(3))
def test_coverage_on_fresh_rows_is_the_level(seed: int) -> None:
    found = conformal.measure(conformal.fit(*rows(4000, seed)), *rows(20_000, seed + 100))
    assert [one.level for one in found] == list(LEVELS)
    for one in found:
        assert abs(one.coverage - one.level) < binomial(one.level, 4000, one.rows), one
    assert sorted(one.mean_width for one in found) == [one.mean_width for one in found]


def test_coverage_is_the_level_wherever_the_score_lies_and_one_width_is_not() -> None:
    scores, labels = rows(4000, 1)
    fresh, truth = rows(40_000, 2)
    found = Intervals.of({"intervals": conformal.fit(scores, labels)}, 0.9)
    low, high = found.around(fresh)
    residuals = np.sort(labels.astype(float) - scores)
    at = conformal.rank(0.9, len(residuals))
    tenth = ((fresh - 1) / 0.9).astype(int)

    def worst(low: NDArray[np.floating], high: NDArray[np.floating]) -> float:
        held = (low <= truth) & (truth <= high)
        return max(abs(float(held[tenth == part].mean()) - 0.9) for part in range(10))

    mine, constant = worst(low, high), worst(fresh + residuals[at - 1], fresh + residuals[-at])
    assert mine < binomial(0.9, 400, 4000)
    assert constant > 0.09
    beside = (high - fresh) / (fresh - low)
    assert float(np.median(beside)) > 2, "the long side is the long one"


@pytest.mark.parametrize(("count", "levels"), [(2, ()), (8, (0.5,)), (9, (0.5, 0.8)), (198, LEVELS[:4]), (199, LEVELS)])
def test_a_level_that_too_few_rows_can_hold_is_left_out(count: int, levels: tuple[float, ...]) -> None:
    told = conformal.fit(*rows(count, 0))
    assert tuple(one["level"] for one in told["levels"]) == levels


def test_with_the_fewest_rows_the_ends_are_the_outermost_residuals() -> None:
    scores, labels = rows(19, 3)
    (level,) = (one for one in conformal.fit(scores, labels)["levels"] if one["level"] == 0.9)
    residuals = labels.astype(float) - scores
    assert (level["below"], level["above"]) == ([residuals.min()], [residuals.max()])


def test_a_bin_with_too_few_rows_for_a_level_is_joined_with_its_neighbour() -> None:
    told = {one["level"]: one for one in conformal.fit(*rows(2500, 4))["levels"]}
    assert len(told[0.9]["rows"]) > len(told[0.99]["rows"]) == 2
    for level, one in told.items():
        assert sum(one["rows"]) == 2500
        assert len(one["edges"]) + 1 == len(one["rows"]) == len(one["below"]) == len(one["above"])
        assert all(conformal.rank(level, count) >= 5 for count in one["rows"])


def test_few_distinct_scores_are_no_bins_without_rows() -> None:
    dice = np.random.default_rng(5)
    scores = dice.choice(np.array([1, 2, 3], np.float32), 5000, p=[0.9, 0.02, 0.08])
    labels = (scores * dice.normal(1, 1, 5000)).astype(np.float32)
    for one in conformal.fit(scores, labels)["levels"]:
        assert min(one["rows"]) >= 80
        assert one["edges"] == sorted(set(one["edges"]))


def test_scores_that_are_not_finite_have_no_intervals() -> None:
    scores, labels = rows(500, 6)
    scores[7] = np.nan
    told = conformal.fit(scores, labels)
    assert told["levels"] == []
    assert conformal.measure(told, scores, labels) == ()


def test_a_biased_model_still_has_its_score_within() -> None:
    scores, _ = rows(500, 7)
    for one in conformal.fit(scores, scores + 50)["levels"]:
        assert one["below"] == [0.0] * len(one["below"])
        assert min(one["above"]) == pytest.approx(50)


def served(out: Path) -> tuple[Scorecard, list[Scorecard]]:
    """The scorecard of what is served, and the others."""
    name = json.loads((out / "model.json").read_text("utf-8"))["served"]
    cards = [Scorecard.model_validate(card) for card in json.loads((out / "scorecards.json").read_text("utf-8"))]
    (mine,) = (card for card in cards if card.model == name)
    return mine, [card for card in cards if card.model != name]


def measured(out: Path, data: Path) -> tuple[Coverage, ...]:
    """The same by the engine that scores at night."""
    import polars as pl

    engine, frame = Engine(out), pl.read_parquet(data / "holdout.parquet")
    return conformal.measure(engine.facts["intervals"], engine.score(frame), frame["label"].to_numpy())


def test_what_is_served_is_measured_on_the_holdout_and_no_other_model(train_once: Callable[[str], Trained]) -> None:
    trained = train_once("regression")
    mine, others = served(trained.out)
    assert [one.level for one in mine.intervals] == list(LEVELS), "300 validation rows are enough"
    assert mine.intervals == measured(trained.out, trained.data)
    assert not any(card.intervals for card in others)
    assert mine.flat["student_int8_interval_90_coverage"] == mine.intervals[2].coverage
    for one in mine.intervals:
        # What the other fault of such intervals would be: the student was stopped by these rows, see the module.
        assert one.coverage > one.level - binomial(one.level, 300, one.rows), one


def test_trees_have_intervals_as_well_and_probabilities_have_none(
    tmp_path: Path, train_once: Callable[[str], Trained]
) -> None:
    data = write(tmp_path / "data", "regression")
    run(Job(spec=make_spec("regression", model="lightgbm"), data=data, out=tmp_path / "out", threads=1), lambda _: None)
    mine, _ = served(tmp_path / "out")
    assert mine.model == "lightgbm_onnx"
    assert mine.intervals == measured(tmp_path / "out", data)
    assert len(mine.intervals) == len(LEVELS)
    assert TASKS[0] == "binary"
    other, _ = served(train_once("binary").out)
    assert other.intervals == ()
    assert json.loads((train_once("binary").out / "model.json").read_text("utf-8"))["intervals"] is None
