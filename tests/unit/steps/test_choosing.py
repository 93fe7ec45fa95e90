"""Which model scores which night: the champion, the one of then, or one by its number."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.errors import IntegrityError, NotFoundError
from pipelines.partitions import shift, span
from pipelines.records import Check, Promotion, RunInfo, ScorePlan
from pipelines.runtime import Runtime
from pipelines.steps.choosing import choose, reigning
from pipelines.steps.predictions import PREDICTIONS
from pipelines.steps.promotions import append_entry, before
from tests.cases.champions import AS_OF, DAYS, NAME, Champions

NIGHTS = span("2024-01-30", "2024-02-14", "day")


def entry(epoch: int, version: int, as_of: str, *, last_night: str = "") -> Promotion:
    return Promotion(
        epoch=epoch,
        kind="promote",
        version=version,
        previous=None,
        reason="r",
        as_of=as_of,
        last_night=last_night,
        run=RunInfo(run_id="r"),
    )


def versions(log: list[Promotion], nights: list[str]) -> list[int | None]:
    return [found.version if (found := reigning(log, night)) else None for night in nights]


def test_a_model_is_not_there_for_the_night_up_to_which_it_learned_but_for_the_next() -> None:
    log = [entry(1, 1, NIGHTS[2]), entry(2, 2, NIGHTS[4])]
    assert versions(log, NIGHTS[1:7]) == [None, None, 1, 1, 2, 2]
    assert versions([], NIGHTS[:1]) == [None]


def test_of_several_entries_of_one_night_the_last_epoch_counts() -> None:
    log = [entry(1, 1, NIGHTS[2]), entry(2, 2, NIGHTS[4]), entry(3, 1, NIGHTS[4])]
    assert versions(log, NIGHTS[3:7]) == [1, 1, 1, 1]


def test_a_promotion_or_a_rollback_that_came_late_changes_no_night_that_ran_before_it() -> None:
    log = [entry(1, 1, NIGHTS[2]), entry(2, 2, NIGHTS[3]), entry(3, 1, NIGHTS[3], last_night=NIGHTS[6])]
    assert versions(log, NIGHTS[3:9]) == [1, 2, 2, 2, 1, 1]


def test_an_entry_never_begins_before_the_one_that_it_followed() -> None:
    """A training of older data may become the champion after one of newer data."""
    log = [entry(1, 1, NIGHTS[5]), entry(2, 2, NIGHTS[3])]
    assert versions(log, NIGHTS[3:8]) == [None, None, None, 2, 2]


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Nights that run, trainings of data that is so many nights old, rollbacks of so many steps."""
    happens = st.one_of(
        st.tuples(st.just("night"), st.integers(1, 2)),
        st.tuples(st.just("promote"), st.integers(0, 3)),
        st.tuples(st.just("rollback"), st.just(0)),
    )
    return draw(st.lists(happens, min_size=1, max_size=40))


@given(history=histories(), seed=st.integers(0, 99))
@settings(max_examples=300, deadline=None)
def test_nights_scored_one_by_one_have_the_models_that_as_of_names_in_the_end(
    history: list[tuple[str, int]], seed: int
) -> None:
    """A night may have no input; a promotion may wait for a person while nights pass."""
    night, log, scored = "2024-01-01", list[Promotion](), dict[str, int]()
    for what, count in history:
        if what == "night":
            night = shift(night, count, "day")
            if log:
                scored[night] = log[-1].version
            continue
        last = max(scored, default="")
        if what == "promote":
            log.append(entry(len(log) + 1, len(log) + 1, shift(night, -count, "day"), last_night=last))
        elif (target := before(log)) is not None:
            log.append(entry(len(log) + 1, target, log[-1].as_of, last_night=last))
    asked = list(scored)
    random.Random(seed).shuffle(asked)
    assert {each: found.version for each in asked if (found := reigning(log, each))} == scored


# -- with a real store and a real registry -----------------------------------------------------------------------------


def publish(runtime: Runtime, plans: tuple[ScorePlan, ...]) -> list[tuple[str, int, str]]:
    """Carries plans out: partition, model and state of each night."""
    done = [each for plan in plans for each in runtime.publish_scores(runtime.audit_scores(runtime.score_plan(plan)))]
    return [(each.partition, each.model_version, each.state) for each in done]


def models(runtime: Runtime) -> dict[str, int]:
    """The version in the published rows of each night."""
    head = runtime.store.head(PREDICTIONS)
    assert head is not None
    rows = runtime.store.scan(head).select("partition", "model_version").unique().collect()
    assert rows.height == rows.get_column("partition").n_unique()
    return dict(rows.iter_rows())


@pytest.fixture(scope="module")
def lived(registered: Champions, tmp_path_factory: pytest.TempPathFactory) -> Champions:
    """Nights that ran one by one, with a promotion, a later rollback by a person, and a promotion that waited."""
    champions = registered.copy(tmp_path_factory.mktemp("lived"))
    runtime = champions.runtime("night")
    champions.promote(1, "first")  # as of the eighth day: the ninth is the first night
    publish(runtime, runtime.plan_scores([DAYS[8]]))
    champions.promote(2, "second", over=1)  # knows the eighth day only, and came after the ninth night
    publish(runtime, runtime.plan_scores([DAYS[9]]))
    champions.runtime("back").rollback(None, "worse")
    publish(runtime, runtime.plan_scores([DAYS[10]]))
    champions.promote(3, "third", over=1)
    publish(runtime, runtime.plan_scores([DAYS[11]]))
    return champions


def lived_copy(lived: Champions, tmp_path_factory: pytest.TempPathFactory) -> Runtime:
    return lived.copy(tmp_path_factory.mktemp("lived")).runtime("after")


def test_across_promotions_and_a_rollback_as_of_finds_the_model_of_each_night(lived: Champions) -> None:
    runtime = lived.runtime("later")
    then = {DAYS[8]: 1, DAYS[9]: 2, DAYS[10]: 1, DAYS[11]: 3}
    assert models(runtime) == then
    shuffled = [DAYS[11], DAYS[8], DAYS[10], DAYS[9], DAYS[8]]
    plans = runtime.plan_scores(shuffled, "as-of")
    assert [(plan.model.version, tuple(plan.rows_in)) for plan in plans] == [
        (1, (DAYS[8], DAYS[10])),
        (2, (DAYS[9],)),
        (3, (DAYS[11],)),
    ]
    assert not any(plan.due for plan in plans)
    assert {night: runtime.plan_scores([night], "as-of")[0].model.version for night in then} == then
    assert not any(plan.due for plan in runtime.plan_scores(shuffled, "as-of", anew=True)), "they have these models"


def test_what_was_scored_anew_comes_back_by_as_of_to_the_same_bytes(
    lived: Champions, tmp_path_factory: pytest.TempPathFactory
) -> None:
    runtime = lived_copy(lived, tmp_path_factory)
    nights = list(DAYS[8:])

    def digests() -> dict[str, str]:
        head = runtime.store.head(PREDICTIONS)
        assert head is not None
        return {key: part.digest for key, part in runtime.store.partitions(head).items()}

    before_it, commits = digests(), len(runtime.store.history(PREDICTIONS))
    assert [state for _, _, state in publish(runtime, runtime.plan_scores(nights))] == ["unchanged"] * 4
    assert [state for _, _, state in publish(runtime, runtime.plan_scores(nights, "as-of"))] == ["unchanged"] * 4
    assert len(runtime.store.history(PREDICTIONS)) == commits, "a newer champion rewrites nothing unless asked"

    done = publish(runtime, runtime.plan_scores(nights, anew=True))
    assert done == [(night, 3, "unchanged" if night == DAYS[11] else "published") for night in nights]
    assert set(models(runtime).values()) == {3}
    assert publish(runtime, runtime.plan_scores(nights, 3)) == [(night, 3, "unchanged") for night in nights]

    for night in reversed(nights):  # one by one, in any order
        publish(runtime, runtime.plan_scores([night], "as-of", anew=True))
    assert models(runtime) == {DAYS[8]: 1, DAYS[9]: 2, DAYS[10]: 1, DAYS[11]: 3}
    assert digests() == before_it
    publishes = [commit for commit in runtime.store.history(PREDICTIONS) if DAYS[8] in commit.partitions]
    assert len(publishes) == 3, "history is kept"


def test_nights_before_the_first_champion_are_in_no_plan_and_alone_are_an_error(lived: Champions) -> None:
    runtime = lived.runtime("later")
    chosen = choose(runtime.spec, runtime.store, runtime.registry, DAYS[6:10], "as-of")
    assert chosen.without == (DAYS[6], AS_OF)
    assert [mine for _, mine in chosen.models] == [(DAYS[8],), (DAYS[9],)]
    with pytest.raises(NotFoundError, match=rf"no champion when {DAYS[0]}\.\.{AS_OF} \(8\) ran: .* as of {AS_OF}"):
        runtime.plan_scores(DAYS[:8], "as-of")


def test_without_any_champion_both_ways_say_so(champions: Champions) -> None:
    runtime = champions.runtime()
    with pytest.raises(NotFoundError, match="there is no champion yet"):
        runtime.plan_scores([DAYS[9]])
    with pytest.raises(NotFoundError, match=f"no champion when {DAYS[9]} ran: there is none yet"):
        runtime.plan_scores([DAYS[9]], "as-of")


@pytest.mark.parametrize("model", ["newest", "0", "-1", "1.0", "٢", "", "9" * 11])
def test_a_model_that_is_none_of_these_is_refused(model: str, lived: Champions) -> None:
    with pytest.raises(NotFoundError, match="Allowed: champion, as-of, or a version's number"):
        lived.runtime().plan_scores([DAYS[9]], model)


def test_a_version_that_was_deleted_is_named_with_its_nights(champions: Champions) -> None:
    champions.promote(1, "first")
    champions.promote(2, "second", over=1)
    runtime = champions.runtime()
    runtime.registry.fetch(runtime.registry.get(2))  # a copy on this machine must not hide it
    runtime.registry._mlflow().delete_model_version(NAME, "2")
    with pytest.raises(NotFoundError, match=rf"{NAME}@2: it was champion when {DAYS[8]} ran.*another version"):
        runtime.plan_scores([DAYS[8]], "as-of")
    with pytest.raises(NotFoundError, match="2"):
        runtime.plan_scores([DAYS[8]], 2)
    (plan,) = runtime.plan_scores([DAYS[8]], 1)
    assert plan.model.version == 1


def test_a_number_that_another_run_has_now_is_not_the_model_of_then(champions: Champions) -> None:
    first = champions.promote(1, "first")
    runtime = champions.runtime()
    other = first.model_copy(update={"epoch": 2, "version": 2, "as_of": DAYS[8]})  # says that run 1 made version 2
    append_entry(runtime.spec, runtime.store, other, [Check(name="looked", passed=True, observed="")])
    with pytest.raises(IntegrityError, match=f"{NAME}@2: it was champion when {DAYS[9]} ran, as a model of run"):
        runtime.plan_scores([DAYS[9]], "as-of")


# -- a run keeps what it resolved --------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["promoted", "rolled back", "deleted"])
def test_a_run_keeps_the_version_that_it_resolved(change: str, champions: Champions) -> None:
    champions.promote(1, "first")
    champions.promote(2, "second", over=1)
    runtime = champions.runtime("night")
    (plan,) = runtime.plan_scores([DAYS[9]])
    if change == "deleted":
        runtime.registry.fetch(plan.model)  # the run holds its model; what it has not brought here is gone for it too
    scored = runtime.score_plan(plan) if change == "rolled back" else None
    if change == "promoted":
        champions.promote(3, "third", over=2)
    elif change == "rolled back":
        champions.runtime("back").rollback(None, "worse")
    else:
        runtime.registry._mlflow().delete_model_version(NAME, "2")
    fresh = champions.runtime("night")  # the next task of the same run
    (done,) = fresh.publish_scores(fresh.audit_scores(scored or fresh.score_plan(plan)))
    assert (done.model_version, done.state) == (2, "published")
    assert models(fresh) == {DAYS[9]: 2}
    (commit,) = fresh.store.history(PREDICTIONS)
    assert commit.provenance["model"] == f"{NAME}@2"
