"""Drift from what scoring counted: bit for bit that of the rows, and only where what it counted is what is there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest

from pipelines.backends.psi import PopulationStability
from pipelines.counts import NOTE, total
from pipelines.parquet import Writer
from pipelines.ports import Draft, SnapshotStore
from pipelines.records import ColumnDrift, Counts, Observation, Observations, Reference, SnapshotRef
from pipelines.runtime import Runtime
from pipelines.steps.features import build_features
from pipelines.steps.predictions import PREDICTIONS, published_predictions
from tests.cases.champions import DAYS, Champions
from tests.contracts.stores import RUN, audit

SCORED = DAYS[9:12]
AS_OF, WINDOW = DAYS[11], 5


class Recorded(PopulationStability):
    """The detector, which remembers whose rows it counted."""

    def __init__(self) -> None:
        self.inputs: list[str] = []
        self.scores: list[str] = []

    def count(self, spec, reference, features):  # type: ignore[no-untyped-def]
        counts = super().count(spec, reference, features)
        self.inputs += counts
        return counts

    def count_scores(self, spec, reference, scores):  # type: ignore[no-untyped-def]
        counts = super().count_scores(spec, reference, scores)
        self.scores += counts
        return counts


def score(runtime: Runtime, days: Sequence[str] = SCORED, version: int | None = None) -> None:
    runtime.publish_scores(runtime.audit_scores(runtime.score(days, version)))


def head(store: SnapshotStore, table: str = PREDICTIONS) -> SnapshotRef:
    found = store.head(table)
    assert found is not None
    return found


def observe(runtime: Runtime) -> tuple[Observations, Recorded]:
    """What is observed, and whose rows had to be counted for it."""
    runtime.drift = detector = Recorded()
    return runtime.observe(AS_OF, WINDOW), detector


def republish(
    runtime: Runtime, day: str, *, table: str = PREDICTIONS, rows: pl.DataFrame | None = None, **notes: str
) -> None:
    """Publishes a partition's rows, or others, with these notes; as of the same inputs and model."""
    store = runtime.store
    frame = store.scan(head(store, table), [day]).drop("partition").collect() if rows is None else rows

    def write(path: Path) -> int:
        with Writer(path, frame.schema) as file:
            file.write(frame)
            return file.close(notes)

    provenance = {"predictions": {day: published_predictions(store)[day]}} if table == PREDICTIONS else {}
    staged = store.stage(table, [Draft(partition=day, write=write)], RUN)
    store.publish(table, staged, [audit(part) for part in staged], RUN, provenance=provenance)


@pytest.fixture
def runtime(champions: Champions) -> Runtime:
    """Version 1 is champion and has scored the last three days of the window; the two before are not scored."""
    champions.promote(1, "first")
    made = champions.runtime()
    score(made)
    return made


def reference_of(runtime: Runtime) -> Reference:
    return Reference.model_validate_json((runtime.registry.fetch(runtime.model()) / "reference.json").read_bytes())


def measured(runtime: Runtime, days: Sequence[str], together: str | None = None) -> dict[str, tuple[ColumnDrift, ...]]:
    """From the rows themselves."""
    features = build_features(runtime.spec, runtime.store, {"rows": head(runtime.store, "rows")}, days)
    rows = features if together is None else features.with_columns(partition=pl.lit(together))
    return PopulationStability().measure(runtime.spec, reference_of(runtime), rows)


def test_counts_read_back_from_the_prediction_files_give_the_drift_that_the_rows_give(runtime: Runtime) -> None:
    spec, reference, detector = runtime.spec, reference_of(runtime), PopulationStability()
    notes = runtime.store.notes(head(runtime.store), SCORED, NOTE)
    counts = {day: Counts.model_validate_json(text) for day, text in notes.items()}
    drift = {day: detector.drift_of(spec, reference, each, day) for day, each in counts.items()}
    assert drift == measured(runtime, SCORED)
    pooled = detector.drift_of(spec, reference, total(counts.values()), None)
    assert {"all": pooled} == measured(runtime, SCORED, "all")
    scores = runtime.store.scan(head(runtime.store), SCORED).select("partition", "score")
    found = {day: detector.drift_of_scores(spec, reference, each.score) for day, each in counts.items() if each.score}
    assert found == detector.measure_scores(spec, reference, scores)
    assert all(each.psi > 0 for each in found.values())
    for day, each in counts.items():
        decided = runtime.store.scan(head(runtime.store), [day]).collect().get_column("prediction")
        assert each.decisions == {"false": (~decided).sum(), "true": decided.sum()}
        assert each.rows == 150


def test_what_scoring_counted_is_not_counted_again(runtime: Runtime) -> None:
    seen, detector = observe(runtime)
    assert detector.inputs == [DAYS[7], DAYS[8]], "published, and not scored by the champion"
    assert detector.scores == []
    assert {each.partition: each.drift for each in seen.window} == measured(runtime, DAYS[7:12])
    assert {AS_OF: seen.pooled} == measured(runtime, DAYS[7:12], AS_OF)
    states = ["not_scored", "not_scored", "few_rows", "few_rows", "few_rows"]
    assert [each.state for each in seen.window] == states
    assert seen.live_labels == 300, "labels of the last of the three days have not matured"


def test_rows_are_counted_where_a_prediction_file_has_no_counts_and_nothing_else_changes(runtime: Runtime) -> None:
    before, _ = observe(runtime)
    republish(runtime, SCORED[1])
    after, detector = observe(runtime)
    assert detector.inputs == [DAYS[7], DAYS[8], SCORED[1]]
    assert detector.scores == [SCORED[1]]
    assert after == before


def test_counts_that_cannot_be_read_or_are_of_other_rows_are_made_again(runtime: Runtime) -> None:
    before, _ = observe(runtime)
    good = runtime.store.notes(head(runtime.store), [SCORED[0]], NOTE)[SCORED[0]]
    counts = Counts.model_validate_json(good)
    for bad in (
        good[:-9],
        "[]",
        counts.model_copy(update={"rows": 149}).model_dump_json(),
        counts.model_copy(update={"reference": "0" * 64}).model_dump_json(),
    ):
        republish(runtime, SCORED[0], **{NOTE: bad})
        after, detector = observe(runtime)
        assert detector.inputs == [DAYS[7], DAYS[8], SCORED[0]]
        assert detector.scores == [SCORED[0]]
        assert after == before
    republish(runtime, SCORED[0], **{NOTE: good})
    after, detector = observe(runtime)
    assert (after, detector.scores) == (before, [])


def test_rows_that_were_restated_are_counted_as_they_are_now_and_scores_as_they_were_published(
    runtime: Runtime,
) -> None:
    before, _ = observe(runtime)
    rows = runtime.store.scan(head(runtime.store, "rows"), [SCORED[1]]).drop("partition").collect()
    republish(runtime, SCORED[1], table="rows", rows=rows.with_columns(pl.col("wear") + 5))
    after, detector = observe(runtime)
    assert detector.inputs == [DAYS[7], DAYS[8], SCORED[1]]
    assert detector.scores == []
    assert {each.partition: each.drift for each in after.window} == measured(runtime, DAYS[7:12])
    assert after.window[3].drift != before.window[3].drift
    assert [each.score for each in after.window] == [each.score for each in before.window]


def test_what_another_model_scored_is_not_the_champions_though_its_reference_is_the_same(runtime: Runtime) -> None:
    before, _ = observe(runtime)
    score(runtime, [SCORED[2]], 3)  # the same bytes as version 1
    after, detector = observe(runtime)
    assert detector.inputs == [DAYS[7], DAYS[8], SCORED[2]]
    assert detector.scores == []
    assert after.window[4].state == "not_scored"
    assert after.window[4].score is None
    assert [each.drift for each in after.window] == [each.drift for each in before.window]
    assert after.pooled == before.pooled


def test_a_new_champion_has_no_use_for_the_counts_of_the_former(runtime: Runtime, champions: Champions) -> None:
    champions.promote(2, "second", over=1)
    seen, detector = observe(runtime)
    assert detector.inputs == list(DAYS[7:12])
    assert {each.partition: each.drift for each in seen.window} == measured(runtime, DAYS[7:12])
    assert {each.state for each in seen.window} == {"not_scored"}
    assert seen.pooled_score is None


def test_an_erased_row_is_in_no_count_any_more(runtime: Runtime) -> None:
    (gone,) = runtime.store.scan(head(runtime.store), [SCORED[0]]).head(1).collect().get_column("id")
    runtime.erase(f"id={gone}", "asked for", act=True)
    assert set(runtime.store.notes(head(runtime.store), SCORED, NOTE)) == set(SCORED[1:])
    seen, detector = observe(runtime)
    assert detector.inputs == [DAYS[7], DAYS[8], SCORED[0]]
    assert detector.scores == [SCORED[0]]
    assert seen.window[2].rows == 149
    assert {each.partition: each.drift for each in seen.window} == measured(runtime, DAYS[7:12])


def test_strange_values_are_counted_by_scoring_as_they_are_counted_from_the_rows(runtime: Runtime) -> None:
    rows = runtime.store.scan(head(runtime.store, "rows"), [DAYS[8]]).drop("partition").collect()
    numbers = [None, math.nan, math.inf, -math.inf, 1e30, 0.0, -0.0, 1e-45]
    words = [None, "", "north", "south ", "NORTH", "east"]
    strange = rows.with_columns(
        pressure=pl.Series(numbers + rows.get_column("pressure").to_list()[len(numbers) :]),
        site=pl.Series(words + rows.get_column("site").to_list()[len(words) :]),
    )
    republish(runtime, DAYS[8], table="rows", rows=strange)
    score(runtime, [DAYS[8]])
    counts = Counts.model_validate_json(runtime.store.notes(head(runtime.store), [DAYS[8]], NOTE)[DAYS[8]])
    assert (counts.columns["pressure"].nulls, counts.columns["site"].nulls, counts.columns["site"].unseen) == (2, 1, 4)
    seen, detector = observe(runtime)
    assert detector.inputs == [DAYS[7]]
    assert {each.partition: each.drift for each in seen.window} == measured(runtime, DAYS[7:12])


def test_a_partition_without_rows_is_scored_and_has_no_drift(runtime: Runtime) -> None:
    rows = runtime.store.scan(head(runtime.store, "rows"), [DAYS[8]]).drop("partition").collect()
    republish(runtime, DAYS[8], table="rows", rows=rows.clear())
    score(runtime, [DAYS[8]])
    counts = Counts.model_validate_json(runtime.store.notes(head(runtime.store), [DAYS[8]], NOTE)[DAYS[8]])
    assert counts.rows == 0
    seen, detector = observe(runtime)
    assert detector.inputs == [DAYS[7]]
    assert seen.window[1] == Observation(partition=DAYS[8], rows=0, state="few_rows")
    assert {AS_OF: seen.pooled} == measured(runtime, [DAYS[7], *SCORED], AS_OF)
