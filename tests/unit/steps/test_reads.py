"""What was read, told by the ends of stretches."""

from __future__ import annotations

import doctest
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipelines.steps import reads
from pipelines.steps.reads import stretches, within

_KEYS = [f"2013-01-{day:02d}" for day in range(1, 29)]


@given(used=st.sets(st.sampled_from(_KEYS)))
def test_stretches_are_told_apart_and_give_back_exactly_what_was_used(used: set[str]) -> None:
    told = stretches(_KEYS, used)
    assert within(_KEYS, told) == sorted(used)
    # No two of them touch: between any two lies a key that was not used.
    for (_, last), (first, _) in pairwise(told):
        assert set(_KEYS[_KEYS.index(last) + 1 : _KEYS.index(first)]) - used


def test_a_key_that_came_later_is_not_taken_for_read_unless_it_lies_within() -> None:
    assert within(["a", "b", "c", "d", "e"], [("b", "c")]) == ["b", "c"]
    assert within(["d", "e"], [("b", "c")]) == []
    assert within(["a"], []) == []


def test_the_examples_in_docstrings_are_true() -> None:
    outcome = doctest.testmod(reads)
    assert (outcome.attempted, outcome.failed) == (2, 0)
