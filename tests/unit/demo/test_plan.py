"""The plans of the demo, and that a promise can be broken."""

from __future__ import annotations

from typing import ClassVar

import pytest

from include.demo import promises
from include.demo.plan import FULL, SHORT, Plan
from include.demo.record import Record
from include.demo.story import Played
from pipelines import partitions


def _nights(plan: Plan) -> list[str]:
    return [key for low, high in plan.scored for key in partitions.span(low, high, "day")]


@pytest.mark.parametrize("plan", [FULL, SHORT], ids=lambda plan: plan.name)
def test_no_night_is_played_twice_and_none_lies_in_history(plan: Plan) -> None:
    nights = _nights(plan)
    assert len(set(nights)) == len(nights)
    assert min(nights) == partitions.shift(plan.history[1], 1, "day")


def test_the_full_story_plays_every_night_from_september_to_december() -> None:
    assert sorted(_nights(FULL)) == partitions.span("2013-09-01", "2013-12-31", "day")
    assert FULL.history == ("2013-01-01", "2013-08-31")
    assert FULL.bad == "2013-09-08"
    assert FULL.nights == tuple(partitions.span("2013-09-01", "2013-09-07", "day"))


@pytest.mark.parametrize("plan", [FULL, SHORT], ids=lambda plan: plan.name)
def test_the_repeated_night_was_played_by_itself(plan: Plan) -> None:
    assert plan.repeated in plan.nights


class _Nothing:
    """A record of a story in which nothing happened."""

    played = Played()
    rows: ClassVar[dict[str, int]] = {}
    scores: ClassVar[dict[str, int]] = {}
    distinct_keys = 0
    runs: ClassVar[list[object]] = []
    quarantined: ClassVar[list[object]] = []
    trainings: ClassVar[list[object]] = []
    promotions: ClassVar[list[object]] = []
    decisions: ClassVar[list[object]] = []

    class runtime:  # noqa: N801
        class spec:  # noqa: N801
            granularity = "day"
            tables = ("rows",)

        class store:  # noqa: N801
            @staticmethod
            def history(_table: str) -> list[object]:
                return []

        class registry:  # noqa: N801
            @staticmethod
            def versions() -> list[object]:
                return []


def test_no_promise_holds_of_a_story_in_which_nothing_happened() -> None:
    record: Record = _Nothing()  # type: ignore[assignment]
    held = [verdict.promise for verdict in promises.check(SHORT, record) if verdict.held]
    assert held == []


def test_a_promise_that_cannot_be_checked_is_broken() -> None:
    verdicts = promises.check(SHORT, None)  # type: ignore[arg-type]
    assert not any(verdict.held for verdict in verdicts)
    assert all(verdict.promise for verdict in verdicts)
