"""Two runs that score the same partitions at once: one set of scores, and the other run says so."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from pipelines.steps.predictions import PREDICTIONS
from tests.faults.nights import SMALL, Nights, outcome
from tests.faults.scorers import AT, AUDITED, PLANNED, Scorers

_BOTH = (PLANNED, AUDITED)


def states(said: str) -> list[str]:
    """What became of each partition, such as `published v1`."""
    return re.findall(r"(?:published|unchanged) v\d+", said)


def scored_at(nights: Nights) -> list[str]:
    head = nights.store.head(PREDICTIONS)
    assert head is not None
    rows = nights.store.scan(head, columns=["scored_at"]).collect()
    assert rows.height == 150 * len(SMALL)
    return [str(value) for value in rows.get_column("scored_at").unique()]


def test_of_two_runs_with_other_bytes_one_publishes_everything_and_the_other_says_unchanged(
    nights: Nights, scorers: Scorers
) -> None:
    runs = [nights.night(run_id=f"run-{n}", at=AT + timedelta(hours=n)) for n in range(2)]
    outcomes = [states(said) for said in scorers.run(*runs, meet=_BOTH)]
    assert sorted(outcomes) == [["published v1"] * 3, ["unchanged v1"] * 3]
    (commit,) = nights.store.history(PREDICTIONS)
    assert commit.run == runs[outcomes.index(["published v1"] * 3)].runtime().run
    assert len(scored_at(nights)) == 1
    assert [path for path in (nights.home / "snapshots").rglob("_staging/**/*") if path.is_file()] == []


@pytest.mark.parametrize("shards", [False, True])
def test_a_run_that_was_started_twice_publishes_once(shards: bool, nights: Nights, scorers: Scorers) -> None:
    """Both do the very same, pieces of one plan included: the one commit is either's, so that each may call it its."""
    said = scorers.run(nights.night(shards=shards), nights.night(shards=shards), meet=_BOTH)
    assert all(states(each) in (["published v1"] * 3, ["unchanged v1"] * 3) for each in said), said
    assert any("published" in each for each in said)
    twice = outcome(nights)
    assert len(twice["history"]) == 1
    (again,) = scorers.run(nights.night())
    assert states(again) == ["unchanged v1"] * 3
    assert outcome(nights) == twice


def test_runs_that_overlap_in_some_partitions_leave_each_partition_once(nights: Nights, scorers: Scorers) -> None:
    said = scorers.run(nights.night(*SMALL[:2], run_id="a"), nights.night(*SMALL[1:], run_id="b"), meet=_BOTH)
    found = [states(each) for each in said]
    assert sorted(state for each in found for state in each) == ["published v1"] * 3 + ["unchanged v1"]
    assert outcome(nights)["partitions"].keys() == set(SMALL)
    assert len(scored_at(nights)) == 1


def test_of_the_champion_and_a_named_version_the_named_one_stays_at_once_or_by_a_retry(
    nights: Nights, scorers: Scorers
) -> None:
    """The champion's run leaves what is there from the same inputs; a version that was named is asked for."""
    champion, named = nights.night(run_id="champion"), nights.night(run_id="named", version=2)
    mine, theirs = scorers.run(champion, named, meet=_BOTH)
    if theirs.startswith("ConflictError"):
        assert states(mine) == ["published v1"] * 3
        assert outcome(nights)["history"][0]["run"]["run_id"] == "champion"
        (theirs,) = scorers.run(named)
    else:
        assert states(mine) == ["unchanged v2"] * 3
    assert states(theirs) == ["published v2"] * 3
    (after,) = scorers.run(champion)
    assert states(after) == ["unchanged v2"] * 3
    assert outcome(nights)["history"][0]["run"]["run_id"] == "named"
