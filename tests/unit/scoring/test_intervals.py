"""An artifact's intervals around any scores, whatever is beside them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import SchemaMismatch
from pipelines.intervals import Intervals
from pipelines.scoring.engine import Engine

from .conftest import Artifact, every_value

_LEVEL = {"level": 0.9, "edges": [-1.5, 2.25], "below": [-3.3, 0.0, -1e38], "above": [0.1, 0.0, 3e38]}
FACTS: dict[str, Any] = {"intervals": {"levels": [_LEVEL, {**_LEVEL, "level": 0.5}]}}
FLOATS = st.lists(st.floats(allow_nan=False, allow_infinity=False, width=32), min_size=1, max_size=50)


@given(scores=FLOATS)
def test_a_finite_score_is_within_finite_ends(scores: list[float]) -> None:
    score = np.array(scores, np.float32)
    low, high = Intervals.of(FACTS, 0.9).around(score)
    assert low.dtype == high.dtype == np.float32
    assert np.isfinite([low, high]).all()
    assert (low <= score).all()
    assert (score <= high).all()


@given(scores=FLOATS, at=st.integers(0, 50))
def test_a_rows_ends_are_the_same_bytes_whatever_is_beside_it(scores: list[float], at: int) -> None:
    score, found = np.array(scores, np.float32), Intervals.of(FACTS, 0.9)
    whole = np.stack(found.around(score))
    cut = np.concatenate([np.stack(found.around(part)) for part in (score[:at], score[at:])], axis=1)
    assert whole.tobytes() == cut.tobytes()


def test_a_score_at_an_edge_is_above_it() -> None:
    low, _ = Intervals.of(FACTS, 0.9).around(np.array([-1.6, -1.5, 2.0, 2.25], np.float32))
    assert low.tolist() == pytest.approx([-4.9, -1.5, 2.0, -1e38])


def test_a_score_that_is_no_number_has_no_ends() -> None:
    low, high = Intervals.of(FACTS, 0.9).around(np.array([np.nan], np.float32))
    assert np.isnan([low, high]).all()


def test_a_level_that_is_not_kept_is_refused_with_those_that_are() -> None:
    with pytest.raises(SchemaMismatch, match=r"interval 0\.99: .*it has 0\.9, 0\.5.*Remedy: .*retrain, with 199"):
        Intervals.of(FACTS, 0.99)


@pytest.mark.parametrize("facts", [{}, {"intervals": None}, {"intervals": {"levels": []}}])
def test_an_artifact_without_intervals_says_so_and_what_helps(facts: dict[str, Any]) -> None:
    with pytest.raises(SchemaMismatch, match=r"it keeps no intervals.*Remedy: retrain"):
        Intervals.of(facts, 0.9)


def test_hostile_rows_have_intervals_that_hold_their_scores(make_artifact: Callable[[str], Artifact]) -> None:
    folder: Path = make_artifact("regression").folder
    engine = Engine(folder)
    words = json.loads((folder / "model.json").read_text("utf-8"))["vocabularies"]["colour"]
    scores = engine.score(every_value(words))
    low, high = Intervals.of(engine.facts, 0.95).around(scores)
    assert np.isfinite([low, high]).all()
    assert (low < high).all()
    assert ((low <= scores) & (scores <= high)).all()
