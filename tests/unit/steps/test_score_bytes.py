"""The file of a night's scores is the same bytes however the work was cut: tiles, threads, batches, queries."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ports import Draft
from pipelines.records import ScorePlan
from pipelines.runtime import Runtime
from tests.cases.champions import Champions
from tests.contracts.stores import RUN, audit

#: Rows of each night: none, one, around a block of the graph's, around a batch, around a row group, and past it.
SIZES = (0, 1, 63, 65, 1000, 0, 65_536, 65_537, 131_073, 140_000)
DAYS = {f"2024-06-{day:02d}": rows for day, rows in enumerate(SIZES, 1)}


@dataclass(frozen=True)
class Nights:
    runtime: Runtime
    plan: ScorePlan
    digests: dict[str, str]
    """What is staged when nothing is set."""


def rows(count: int, seed: int) -> pl.DataFrame:
    """Numbers, nulls and NaN; sites that the model knows, does not know, and none."""
    number = pl.int_range(count, dtype=pl.UInt64)
    noise = (number + seed * 1_000_003).hash(seed)
    return pl.select(
        id=number.cast(pl.String),
        pressure=pl.when(noise % 31 == 0).then(None).otherwise((noise % 10_007) / 2500 - 2),
        wear=pl.when(noise % 37 == 0).then(float("nan")).otherwise((noise % 9973) / 9973),
        site=pl.when(noise % 41 == 0).then(None).when(noise % 3 == 0).then(pl.lit("north"))
        .when(noise % 43 == 0).then(pl.lit("elsewhere")).otherwise(pl.lit("south")),
    )  # fmt: skip


@pytest.fixture(scope="module")
def nights(registered: Champions, tmp_path_factory: pytest.TempPathFactory) -> Nights:
    runtime = registered.copy(tmp_path_factory.mktemp("bytes")).runtime()
    drafts = [Draft(partition=day, frame=rows(count, seed)) for seed, (day, count) in enumerate(DAYS.items())]
    staged = runtime.store.stage("rows", drafts, RUN)
    runtime.store.publish("rows", staged, [audit(part) for part in staged], RUN)
    plan = runtime.plan_scores(list(DAYS), 1)[0]
    return Nights(runtime, plan, _staged(runtime, plan))


def _staged(runtime: Runtime, plan: ScorePlan) -> dict[str, str]:
    staged = runtime.score_plan(plan).staged
    assert {part.partition: part.rows for part in staged} == DAYS
    return {part.partition: part.digest for part in staged}


@settings(max_examples=12, deadline=None)
@given(
    tile_rows=st.one_of(st.sampled_from([64, 65, 8192, 131_072]), st.integers(64, 20_000)),
    threads=st.integers(1, 4),
    batch_rows=st.sampled_from([997, 8192, 65_535, 65_536, 100_000, 131_072, 200_000]),
    together=st.sampled_from([(1, 1), (2, 70_000), (32, 262_144), (32, 10**9)]),
    query_rows=st.sampled_from([7001, 65_536, 131_072, 1_048_576]),
)
def test_the_file_is_the_same_bytes_for_any_tile_thread_batch_and_query(
    tile_rows: int, threads: int, batch_rows: int, together: tuple[int, int], query_rows: int, nights: Nights
) -> None:
    runtime = Runtime(nights.runtime.spec, nights.runtime.settings, nights.runtime.run)
    scoring = runtime.spec.scoring.model_copy(update={"tile_rows": tile_rows})
    runtime.spec = runtime.spec.model_copy(update={"scoring": scoring})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.scoring.engine.usable_cores", lambda: threads)
        patch.setattr("pipelines.steps.scorer.BATCH_ROWS", batch_rows)
        patch.setattr("pipelines.steps.scorer._QUERY_ROWS", query_rows)
        patch.setattr("pipelines.steps.scorer._TOGETHER", together[0])
        patch.setattr("pipelines.steps.scorer._TOGETHER_ROWS", together[1])
        assert _staged(runtime, nights.plan) == nights.digests
