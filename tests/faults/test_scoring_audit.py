"""Scores that are not what scoring gives: each is quarantined, and what was published before stays."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

from pipelines.errors import QuarantinedError
from pipelines.ports import Draft
from pipelines.records import Scored
from pipelines.runtime import Runtime
from pipelines.steps.predictions import PREDICTIONS
from tests.cases.champions import NAME
from tests.contracts.stores import RUN
from tests.faults.nights import SMALL, Nights, outcome

DAY = SMALL[0]
_FIRST = pl.int_range(pl.len()) == 0


def first(score: float | None) -> Callable[[pl.DataFrame], pl.DataFrame]:
    """Another score of the first row."""
    return lambda rows: rows.with_columns(
        pl.when(_FIRST).then(pl.lit(score, pl.Float32)).otherwise("score").alias("score")
    )


#: What becomes of the scores, and the check that says so.
SPOILED: dict[str, tuple[Callable[[pl.DataFrame], pl.DataFrame], str]] = {
    "a row is lacking": (lambda rows: rows[1:], "row_count_equals_input 149 rows"),
    "there is none at all": (lambda rows: rows.clear(), "row_count_equals_input 0 rows"),
    "a row is there twice": (lambda rows: pl.concat([rows, rows[-1:]]), "keys_match_one_to_one 0 keys .*, 1 repeated"),
    "one took another's place": (
        lambda rows: pl.concat([rows[:-1], rows[:1]]),
        "keys_match_one_to_one 1 keys on one side only, 1 repeated",
    ),
    "a key is another": (
        lambda rows: rows.with_columns(pl.when(_FIRST).then(pl.lit("stranger")).otherwise("id").alias("id")),
        "keys_match_one_to_one 2 keys on one side only, 0 repeated",
    ),
    "keys changed places": (
        lambda rows: rows.with_columns(pl.col("id").reverse()),
        "keys_match_one_to_one 0 keys on one side only, 0 repeated, 150 rows out of place",
    ),
    "rows changed places": (lambda rows: pl.concat([rows[75:], rows[:75]]), "150 rows out of place"),
    "a score is no number": (first(float("nan")), "scores_are_finite 1 null"),
    "a score is missing": (first(None), "scores_are_finite 1 null"),
    "a score is infinite": (first(float("inf")), "scores_are_finite 1 null"),
    "a score is no probability": (first(1.0001), "scores_in_range 1 outside"),
    "a score is negative": (first(-1e-6), "scores_in_range 1 outside"),
    "all scores are one": (lambda rows: rows.with_columns(score=pl.lit(0.5, pl.Float32)), "scores_differ 1 distinct"),
}


def staged(runtime: Runtime, scored: Scored, frame: pl.DataFrame) -> Scored:
    """The same run with other rows staged, as a scorer would have that has this fault."""
    for part in scored.staged:
        runtime.store.discard(part)
    (spoiled,) = runtime.store.stage(PREDICTIONS, [Draft(partition=DAY, frame=frame)], RUN)
    return scored.model_copy(update={"staged": (spoiled,)})


@pytest.mark.parametrize(("spoil", "said"), SPOILED.values(), ids=SPOILED)
def test_spoiled_scores_are_quarantined_and_the_published_ones_stay(
    spoil: Callable[[pl.DataFrame], pl.DataFrame], said: str, nights: Nights
) -> None:
    assert nights.night(DAY).act() == f"{DAY} published v1"
    before = outcome(nights)
    runtime = nights.night(DAY, run_id="anew").runtime()
    scored = runtime.score([DAY], 2)
    wrong = staged(runtime, scored, spoil(runtime.store.read_staged(scored.staged[0]).collect()))
    with pytest.raises(QuarantinedError, match=said):
        runtime.audit_scores(wrong)
    (entry,) = runtime.store.quarantined(PREDICTIONS)
    assert entry.report.digest == wrong.staged[0].digest
    assert outcome(nights) == before
    left = [path for path in (nights.home / "snapshots" / NAME / "_staging").rglob("*") if path.is_file()]
    assert left == []
    assert nights.night(DAY, version=2).act() == f"{DAY} published v2", "a sound run is not held up"


def test_scores_without_a_fault_pass_the_very_same_way(nights: Nights) -> None:
    runtime = nights.night(DAY).runtime()
    scored = runtime.score([DAY])
    runtime.audit_scores(staged(runtime, scored, runtime.store.read_staged(scored.staged[0]).collect()))
