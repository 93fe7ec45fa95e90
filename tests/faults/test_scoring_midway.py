"""What happens while a night is scored: the champion changes or goes, the rows are erased; a run keeps what it has."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl
import pytest

import pipelines.backends.delta_staging
import pipelines.steps.scoring  # noqa: F401  a module that a patched failpoint imported would keep it
from pipelines.errors import RemovedError, UnavailableError
from pipelines.ports import Draft
from pipelines.runtime import Runtime
from pipelines.steps.predictions import PREDICTIONS
from tests.cases.champions import NAME
from tests.contracts.stores import RUN, audit
from tests.faults.harness import on_failpoints
from tests.faults.nights import SMALL, Nights, outcome

_ERASED = f"{SMALL[1]}-17"


def promote(nights: Nights) -> None:
    nights.champions.promote(2, "meanwhile", over=1)


def roll_back(nights: Nights) -> None:
    """To version 3, which was champion before."""
    nights.champions.runtime("meanwhile").rollback(3, "it was worse")


def delete(nights: Nights) -> None:
    """The version, as a person does in MLflow's pages."""
    from mlflow import MlflowClient

    MlflowClient(nights.champions.settings().tracking_uri).delete_model_version(NAME, "1")


@pytest.fixture
def ahead(nights: Nights) -> Nights:
    """Version 1 is champion again, after 3: there is something to roll back to."""
    nights.champions.promote(3, "second", over=1)
    nights.champions.promote(1, "third", over=3)
    return nights


@pytest.mark.parametrize("shards", [False, True])
@pytest.mark.parametrize("change", [promote, roll_back, delete])
def test_a_run_keeps_the_version_that_it_resolved(
    change: Callable[[Nights], None],
    shards: bool,
    ahead: Nights,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    passed: list[str] = []

    def hook(name: str) -> None:
        if name == "score.batch" and not passed:
            passed.append(name)
            change(ahead)

    with monkeypatch.context() as patch:
        on_failpoints(patch, hook)
        assert ahead.night(shards=shards).act() == ", ".join(f"{day} published v1" for day in SMALL)
    assert passed
    (commit,) = ahead.store.history(PREDICTIONS)
    assert commit.provenance["model"] == f"{NAME}@1"
    head = ahead.store.head(PREDICTIONS)
    assert head is not None
    versions = ahead.store.scan(head, columns=["model_version"]).collect().get_column("model_version")
    assert versions.unique().to_list() == [1]
    if change is not delete:
        assert ahead.champions.runtime().champion() != commit.provenance["model"]
        assert ahead.night().act() == ", ".join(f"{day} unchanged v1" for day in SMALL), "nothing is rewritten"


def erase(runtime: Runtime) -> None:
    done = runtime.erase(f"id={_ERASED}", "ticket 7", act=True)
    assert [table.table for table in done.tables if table.partitions], "the subject was there"


def scored(runtime: Runtime) -> set[str]:
    """The keys of every row that readers of the predictions see."""
    head = runtime.store.head(PREDICTIONS)
    return set() if head is None else set(runtime.store.scan(head, columns=["id"]).collect().get_column("id"))


@pytest.mark.parametrize("when", ["planned", "scored", "audited"])
def test_rows_that_are_erased_between_plan_and_publish_are_said_to_be_and_a_rerun_scores_the_others(
    when: str, nights: Nights
) -> None:
    runtime = nights.night().runtime()

    def run() -> None:
        plan = runtime.plan_scores(SMALL)[0]
        if when == "planned":
            erase(runtime)
        staged = runtime.score_plan(plan)
        if when == "scored":
            erase(runtime)
        audited = runtime.audit_scores(staged)
        if when == "audited":
            erase(runtime)
        runtime.publish_scores(audited)

    with pytest.raises(RemovedError, match=r"erased on 20\d\d-\d\d-\d\d \(tombstone .*: ticket 7\)"):
        run()
    assert scored(runtime) == set()
    assert nights.night().act() == ", ".join(f"{day} published v1" for day in SMALL)
    assert len(scored(runtime)) == 150 * len(SMALL) - 1
    assert _ERASED not in scored(runtime)


@pytest.mark.parametrize("first", [True, False])
def test_a_run_in_which_rows_are_erased_publishes_nothing_and_its_retry_says_erased(
    first: bool, nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The erasure sweeps the file that is being written (`first`), or comes between two files of the same run."""
    runtime, passed = nights.night().runtime(), list[str]()
    days = [SMALL[1], SMALL[2]] if first else [SMALL[0], SMALL[1]]
    plan = runtime.plan_scores(days)[0]

    def hook(name: str) -> None:
        if name == "score.batch" and not passed:
            passed.append(name)
            erase(nights.champions.runtime("eraser"))

    def run() -> None:
        runtime.publish_scores(runtime.audit_scores(runtime.score_plan(plan)))

    with monkeypatch.context() as patch:
        on_failpoints(patch, hook)
        with pytest.raises((RemovedError, UnavailableError)):
            run()
    assert passed
    with pytest.raises(RemovedError, match="ticket 7"):
        run()
    assert scored(runtime) == set()
    assert nights.night(*days).act() == ", ".join(f"{day} published v1" for day in days)
    assert _ERASED not in scored(runtime)


def test_pieces_that_hold_an_erased_row_are_removed_with_it(nights: Nights) -> None:
    runtime = nights.night().runtime()
    plan = runtime.plan_scores(SMALL)[0]
    for shard in plan.shards:
        runtime.score_shard(plan, shard)
    assert len(list(runtime.pieces(plan).iterdir())) == 3
    erase(runtime)
    assert not runtime.pieces(plan).exists()


def test_a_backfill_of_a_snapshot_that_was_erased_says_so(nights: Nights) -> None:
    runtime = nights.night(SMALL[1]).runtime()
    before = runtime.plan_scores([SMALL[1]])[0]
    erase(runtime)
    with pytest.raises(RemovedError, match="erased on"):
        runtime.score_shard(before, before.shards[0])
    with pytest.raises(RemovedError, match="erased on"):
        runtime.score_plan(before)
    assert outcome(nights)["partitions"] == {}


def test_an_input_that_is_restated_while_it_is_scored_is_scored_anew_by_the_next_run(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, passed = nights.store, list[str]()
    rows = store.head("rows")
    assert rows is not None
    fewer = store.scan(rows, [SMALL[0]]).drop("partition").filter(pl.col("id") != f"{SMALL[0]}-3").collect()

    def hook(name: str) -> None:
        if name == "score.batch" and not passed:
            passed.append(name)
            staged = store.stage("rows", [Draft(partition=SMALL[0], frame=fewer)], RUN)
            store.publish("rows", staged, [audit(part) for part in staged], RUN)

    with monkeypatch.context() as patch:
        on_failpoints(patch, hook)
        assert nights.night(SMALL[0]).act() == f"{SMALL[0]} published v1"
    assert outcome(nights)["partitions"][SMALL[0]].rows == 150
    assert nights.night(SMALL[0]).act() == f"{SMALL[0]} published v1"
    assert outcome(nights)["partitions"][SMALL[0]].rows == 149
    assert len(store.history(PREDICTIONS)) == 2
