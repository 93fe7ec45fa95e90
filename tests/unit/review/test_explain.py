"""SHAP values: the same as those of the package shap, they sum to the score, they repeat, and they cost little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from pipelines.backends import model_review_explain as explanations
from pipelines.backends.model_review_explain import Codec, Explained, explained, plan, shapley
from pipelines.backends.model_review_facts import gather
from pipelines.backends.model_review_reasons import examples, explain_model, trend
from pipelines.errors import IntegrityError
from pipelines.scoring.engine import Engine

from .conftest import EVIL, Reviewed


@pytest.fixture(scope="module")
def told(request: pytest.FixtureRequest) -> Explained:
    review_once = request.getfixturevalue("review_once")
    one: Reviewed = review_once("binary")
    return explain_model(gather(one.spec, one.case))


def _curved(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Two outputs of four features that work together."""
    first = rows[:, 0] * rows[:, 1] + np.sin(rows[:, 2])
    return np.column_stack([first, np.where(rows[:, 3] > 0, rows[:, 0], rows[:, 2] ** 2)])


def test_the_values_are_those_of_the_package_shap() -> None:
    import shap

    dice = np.random.default_rng(0)
    rows, background = dice.normal(size=(6, 4)), dice.normal(size=(20, 4))
    exact = shap.explainers.Exact(_curved, shap.maskers.Independent(background, max_samples=20))(rows)
    many = [
        shapley(_curved, rows, _curved(rows), background, _curved(background), np.random.default_rng(seed))
        for seed in range(300)
    ]
    assert np.abs(np.mean(many, axis=0) - exact.values).max() < 0.03
    assert np.abs(exact.values).max() > 1
    assert _curved(background).mean(axis=0) == pytest.approx(exact.base_values[0])


def test_of_a_sum_each_feature_gets_its_own_part_whatever_the_order() -> None:
    dice = np.random.default_rng(0)
    rows, background, weights = dice.normal(size=(5, 3)), dice.normal(size=(7, 3)), np.array([2.0, -1.0, 0.0])

    def score(some: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return (some @ weights)[:, None]

    found = shapley(score, rows, score(rows), background, score(background), dice)[:, :, 0]
    assert found == pytest.approx(weights * (rows - background.mean(axis=0)))


def test_many_rows_are_done_in_pieces_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    dice = np.random.default_rng(0)
    rows, background = dice.normal(size=(9, 4)), dice.normal(size=(5, 4))
    sizes: list[int] = []

    def score(some: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        sizes.append(len(some))
        return _curved(some)

    monkeypatch.setattr(explanations, "_PAIRS", 10)
    found = shapley(score, rows, _curved(rows), background, _curved(background), dice)
    assert max(sizes) == 10
    assert found.sum(axis=1) == pytest.approx(_curved(rows) - _curved(background).mean(axis=0))


def test_values_and_base_sum_to_the_score_of_the_served_model(reviewed: Reviewed) -> None:
    facts = gather(reviewed.spec, reviewed.case)
    told = explain_model(facts)
    served = Engine(Path(reviewed.case.trained.folder)).score(told.frame)
    served = served if served.ndim == 2 else served[:, None]
    for values, base in zip(told.values, told.bases, strict=True):
        summed = base + values.sum(axis=1)
        np.testing.assert_allclose(summed, told.scores, atol=1e-5 * (np.abs(told.scores).max() + 1))
    assert set(np.round(told.scores[:, 0], 4)) <= set(np.round(served.astype(float), 4).ravel())
    shown = [facts.frame.row(place)[:-1] for _, place in examples(facts)]
    assert told.frame.rows()[: len(shown)] == shown
    assert told.frame.columns == list(reviewed.spec.features.columns)


def test_another_seed_finds_the_same_features_in_the_same_order_pushing_the_same_way(told: Explained) -> None:
    first, second = ([told.features[place] for place in np.argsort(-values)] for values in told.importance)
    assert first[:3] == second[:3]
    assert told.agree(3) == 3
    assert told.spread < 0.15
    assert not np.array_equal(told.values[0], told.values[1])
    for place in told.order[:4]:
        assert trend(told, place, 0).stable


def test_directions_are_those_that_the_data_were_made_with(told: Explained) -> None:
    places = {name: place for place, name in enumerate(told.features)}
    for name in ("wide", "narrow", "gaps"):
        assert trend(told, places[name], 0).words.startswith("higher values raise the score"), name
        assert trend(told, places[name], 0).signs == (1, 1)
    colour = trend(told, places["colour"], 0)
    assert colour.words.startswith("red +")
    assert told.features[told.order[-1]] == "shape", "it says nothing"


def test_words_and_nulls_come_back_from_the_matrix_as_they_were(binary: Reviewed) -> None:
    engine = Engine(Path(binary.case.trained.folder))
    frame = pl.DataFrame(
        {
            "wide": [1.0, None, 3.0],
            "narrow": [0.1, 0.2, 0.3],
            "gaps": [None, 5.0, 6.0],
            "colour": [EVIL, None, "never seen"],
            "shape": pl.Series(["round", "", None], dtype=pl.Categorical),
        }
    )
    codec = Codec(engine, [frame])
    back = codec.frame(codec.matrix(frame))
    assert back.get_column("colour").to_list() == [EVIL, None, "never seen"]
    assert back.get_column("shape").to_list() == ["round", "", None]
    assert np.array_equal(engine.score(back), engine.score(frame))


def test_a_score_that_does_not_repeat_is_no_explanation(binary: Reviewed, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = gather(binary.spec, binary.case)
    honest = facts.challenger.engine.score
    calls = iter(range(10**9))

    def restless(rows: pl.DataFrame) -> np.ndarray[Any, Any]:
        """Each call gives something else."""
        return honest(rows) + np.float32(0.01 * next(calls))

    monkeypatch.setattr(facts.challenger.engine, "score", restless)
    with pytest.raises(IntegrityError, match="miss the score"):
        explained(facts.challenger.engine, facts.frame, facts.frame[:60])


@pytest.mark.parametrize("features", [1, 19, 300, 3000])
def test_the_cost_is_bounded_whatever_the_number_of_features(features: int) -> None:
    done = plan(features, 10**6)
    assert done.rows >= 24
    assert done.background >= 12
    if features <= 3000:
        assert done.rows * done.background * 2 * features <= 2_000_000
    assert plan(features, 3).rows == 3


def test_numpys_own_random_numbers_are_left_alone(binary: Reviewed) -> None:
    facts = gather(binary.spec, binary.case)
    np.random.seed(5)
    expected = np.random.random()
    np.random.seed(5)
    explained(facts.challenger.engine, facts.frame, facts.frame[:5])
    assert np.random.random() == expected
