"""kill -9 while a night is scored, at every failpoint and at any moment, then the same night again: as if nothing had
been.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import Any

import pytest

from pipelines.steps.predictions import PREDICTIONS
from tests.faults.nights import LARGE, LARGE_ROWS, Nights, outcome, swept
from tests.faults.scorers import Scorers

#: A night that is split: 150 rows of each partition.
_SPLIT: dict[str, Any] = {"scoring": {"shard_rows": 70}}
_POINTS = {
    False: (
        "score.batch",
        "stage.scratched",
        "stage.written",
        "publish.verified",
        "publish.linked",
        "publish.committed",
    ),
    True: ("score.batch", "shard.written", "stage.scratched", "stage.written", "publish.linked", "publish.committed"),
}
#: Kills, and homes in which they are done: a rerun is killed too before one comes through.
_KILLS, _HOMES = 50, 25


@pytest.fixture(scope="module")
def clean(
    made_nights: Nights, scorers: Scorers, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Any], set[str]]:
    """What a night leaves that nobody disturbs, in one process."""
    mine = made_nights.copy(tmp_path_factory.mktemp("clean"), **_SPLIT)
    (said,) = scorers.run(mine.night())
    assert said.count("published v1") == 3, said
    return outcome(mine), swept(mine)


@pytest.mark.parametrize(
    ("shards", "point"), [(shards, point) for shards, points in _POINTS.items() for point in points]
)
def test_a_night_killed_at_a_failpoint_and_scored_again_is_as_if_nothing_had_been(
    shards: bool,
    point: str,
    clean: tuple[dict[str, Any], set[str]],
    made_nights: Nights,
    scorers: Scorers,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    mine = made_nights.copy(tmp_path_factory.mktemp("mine"), **_SPLIT)
    before = outcome(mine)
    night = mine.night(shards=shards)
    assert scorers.run(night, failpoint=point) == ["killed"], f"did not reach {point}"
    assert outcome(mine) == (clean[0] if point == "publish.committed" else before)
    (said,) = scorers.run(night)
    assert said.count("unchanged v1" if point == "publish.committed" else "published v1") == 3, said
    assert outcome(mine) == clean[0]
    assert swept(mine) == clean[1]


@pytest.mark.timeout(600)
def test_a_million_rows_killed_at_any_moment_fifty_times_and_scored_again_are_one_complete_set_of_scores(
    made_nights: Nights, scorers: Scorers, tmp_path_factory: pytest.TempPathFactory
) -> None:
    undisturbed = made_nights.copy(tmp_path_factory.mktemp("undisturbed"))
    empty, begun = outcome(undisturbed), scorers.start(undisturbed.night(LARGE))
    since = time.monotonic()
    assert begun.outcomes() == [f"{LARGE} published v1"]
    seconds = time.monotonic() - since
    whole, files = outcome(undisturbed), swept(undisturbed)
    assert whole["partitions"][LARGE].rows == LARGE_ROWS
    dice, found = random.Random(7), Counter[str]()
    for _ in range(_HOMES):
        mine = made_nights.copy(tmp_path_factory.mktemp("killed"))
        for _ in range(_KILLS // _HOMES):
            begun = scorers.start(mine.night(LARGE))
            time.sleep(dice.uniform(0, seconds))
            begun.kill()
            (said,) = begun.outcomes()
            found["killed"] += said == "killed"
            after = outcome(mine)
            assert after in (empty, whole), said
            found["invisible"] += after == empty
        (said,) = scorers.run(mine.night(LARGE))
        assert said == f"{LARGE} {'unchanged' if after == whole else 'published'} v1"
        assert outcome(mine) == whole
        assert swept(mine) == files
    assert found["killed"] > _KILLS / 2
    assert found["invisible"] > _KILLS / 4
    frames = [each.store.scan(each.store.head(PREDICTIONS)).collect() for each in (undisturbed, mine)]
    assert frames[0].equals(frames[1])
