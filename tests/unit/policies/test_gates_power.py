"""Over challengers whose true gain is known, the gate keeps its level and sees what is there."""

import math

import pytest

from benchmarks.challengers import simulate
from tests.unit.policies.test_gates import use_case

ROWS, TRIALS = 800, 200
SPEC = use_case(margin_over_champion=0.01, confidence=0.9, resamples=120)


@pytest.fixture(scope="module")
def simulated():
    gains = (0.0, 0.01, 0.05, 0.09)
    return {gain: simulate(SPEC, gain, rows=ROWS, trials=TRIALS if gain <= 0.01 else 60, seed=23) for gain in gains}


def test_a_challenger_at_the_margin_is_promoted_no_more_often_than_declared(simulated):
    error = math.sqrt(0.1 * 0.9 / TRIALS)
    assert simulated[0.01].promoted <= 0.1 + 2 * error
    # A rule that never promotes would pass the line above; one that compares two figures would not.
    assert simulated[0.01].promoted > 0.1 - 3 * error
    assert simulated[0.01].naive > 0.4


def test_a_challenger_that_gains_nothing_is_promoted_less_often_still(simulated):
    assert simulated[0.0].promoted <= simulated[0.01].promoted


def test_a_true_gain_is_seen_as_often_as_the_textbook_says(simulated):
    found = [simulated[gain].promoted for gain in (0.01, 0.05, 0.09)]
    assert found == sorted(found)
    for gain in (0.05, 0.09):
        expected = simulated[gain].expected(0.01, 0.9)
        assert simulated[gain].promoted == pytest.approx(expected, abs=3 * math.sqrt(0.25 / 60))
    assert simulated[0.09].promoted > 0.9


def test_the_deviation_of_one_holdout_is_that_of_many(simulated):
    assert simulated[0.01].deviation == pytest.approx(simulated[0.01].spread, rel=0.15)
