import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import partitions
from pipelines.errors import SpecError
from pipelines.policies.retraining import decide
from pipelines.records import ColumnDrift, Estimate, ModelRef, Observation, Observations
from tests.unit.policies.test_gates import use_case

CHAMPION = ModelRef(name="parcels", version=3, run_id="r", digest="d")


def spec(*, drift=None, **retraining):
    raw = use_case().model_dump(mode="json")
    raw["drift"] = {"window": 10, "alarm": 0.25, "min_rows": 200, "ignore": [], **(drift or {})}
    raw["retraining"] = {
        "share": 0.5,
        "decay": 0.02,
        "cooldown": 14,
        "min_labels": 1000,
        "max_quarantined": 0.1,
        **retraining,
    }
    return type(use_case()).model_validate(raw)


def night(key, psi=0.05, *, state="observed", score=0.05, column="x"):
    seen = state == "observed"
    return Observation(
        partition=key,
        rows=900 if seen else 0,
        state=state,
        drift=(ColumnDrift(column=column, psi=psi, null_share=0.0),) if seen else (),
        score=ColumnDrift(column="score", psi=score, null_share=0.0) if seen else None,
    )


def window(*nights, as_of="2024-06-10", live=0.67, champion=0.67, labels=5000, new=5000, greater=True, **other):
    return Observations(
        use_case="parcels",
        as_of=as_of,
        champion=CHAMPION,
        champion_metric=champion,
        metric="auc",
        greater_is_better=greater,
        window=tuple(nights),
        live=None if live is None else Estimate(value=live, low=live, high=live, rows=labels),
        live_labels=labels,
        new_labels=new,
        **other,
    )


def nights(alarms, calm, as_of="2024-06-10", **lost):
    """A window that ends at `as_of`: nights in alarm, calm nights, and lost ones by state."""
    total = alarms + calm + sum(lost.values())
    keys = partitions.span(partitions.shift(as_of, 1 - total, "day"), as_of, "day") if total else []
    states = [("observed", 0.4)] * alarms + [("observed", 0.05)] * calm
    states += [(state, 0.0) for state, count in lost.items() for _ in range(count)]
    return [night(key, psi, state=state) for key, (state, psi) in zip(keys, states, strict=True)]


def ask(observed, case=None, past=(), backfill=False):
    return decide(observed, case or spec(), past=past, backfill=backfill)


def said(decision, topic):
    (reason,) = [reason for reason in decision.reasons if reason.startswith(topic)]
    return reason


def test_drift_in_half_of_the_judged_partitions_asks_for_a_retraining_and_says_why():
    decision = ask(window(*nights(5, 5)))
    assert decision.retrain
    assert (decision.use_case, decision.as_of, decision.champion) == ("parcels", "2024-06-10", 3)
    assert said(decision, "drift") == (
        "drift: 5 of 10 judged partitions (50.0%) have a PSI of 0.25 or more; 50.0% make an alarm: "
        "x in 5 (worst 0.4000)"
    )
    assert len(decision.reasons) == 6


def test_fewer_partitions_in_alarm_are_a_no_with_the_same_reasons_listed():
    decision = ask(window(*nights(4, 6)))
    assert not decision.retrain
    assert "4 of 10 judged partitions (40.0%)" in said(decision, "drift")
    assert len(decision.reasons) == 6


def test_the_alarm_begins_at_the_threshold_itself():
    keys = partitions.span("2024-06-01", "2024-06-10", "day")
    assert ask(window(*(night(key, 0.25) for key in keys))).retrain
    assert not ask(window(*(night(key, math.nextafter(0.25, 0)) for key in keys))).retrain


def test_drift_of_the_score_counts_like_a_columns():
    keys = partitions.span("2024-06-01", "2024-06-10", "day")
    decision = ask(window(*(night(key, score=0.3) for key in keys)))
    assert decision.retrain
    assert "the score in 10 (worst 0.3000)" in said(decision, "drift")


def test_an_ignored_columns_drift_is_no_alarm():
    assert ask(window(*nights(10, 0))).retrain
    assert not ask(window(*nights(10, 0)), spec(drift={"ignore": ["x"]})).retrain


def test_decay_alone_asks_for_a_retraining():
    decision = ask(window(*nights(0, 10), live=0.64))
    assert decision.retrain
    assert said(decision, "decay") == (
        "decay: auc 0.6400 on 5000 matured labels, 0.0300 worse than the champion's 0.6700; "
        "more than 0.0200 worse is an alarm"
    )


@pytest.mark.parametrize(("live", "greater", "yes"), [(0.66, True, False), (0.7, False, True), (0.64, False, False)])
def test_decay_is_measured_in_the_metrics_own_direction(live, greater, yes):
    assert ask(window(*nights(0, 10), live=live, greater=greater)).retrain is yes


@pytest.mark.parametrize("case", [{"live": None}, {"live": math.nan}, {"labels": 199}])
def test_too_few_labels_are_called_that_and_not_the_absence_of_decay(case):
    decision = ask(window(*nights(0, 10), **{"live": 0.5, **case}))
    assert not decision.retrain
    assert "not enough data" in said(decision, "decay")


@pytest.mark.parametrize("state", ["few_rows", "not_scored", "missing", "quarantined"])
def test_too_few_judged_partitions_are_called_that_and_not_the_absence_of_drift(state):
    decision = ask(window(*nights(4, 0, **{state: 6})))
    assert not decision.retrain
    assert said(decision, "drift") == "drift: not enough data: 4 of 10 partitions could be judged, 5 are needed"


def test_an_empty_window_is_not_enough_data_and_not_healthy():
    decision = ask(window())
    assert not decision.retrain
    assert "not enough data" in said(decision, "drift")
    assert said(decision, "data") == "data: the window is empty"


def test_a_partition_whose_drift_is_no_number_is_not_judged():
    keys = partitions.span("2024-06-01", "2024-06-10", "day")
    decision = ask(window(*(night(key, math.nan) for key in keys)))
    assert "not enough data: 0 of 10" in said(decision, "drift")


@pytest.mark.parametrize(("lost", "yes"), [(1, True), (2, False)])
@pytest.mark.parametrize("state", ["missing", "quarantined"])
def test_unhealthy_data_is_never_trained_on(state, lost, yes):
    assert ask(window(*nights(10 - lost, 0, **{state: lost}))).retrain is yes


def test_a_retraining_needs_labels_that_the_champion_has_not_seen():
    assert not ask(window(*nights(10, 0), new=999)).retrain
    assert ask(window(*nights(10, 0), new=1000)).retrain


def test_a_backfill_never_asks():
    decision = ask(window(*nights(10, 0), live=0.5), backfill=True)
    assert not decision.retrain
    assert "a backfill never asks" in said(decision, "backfill")


@pytest.mark.parametrize(("later", "yes"), [(1, False), (13, False), (14, True), (15, True), (-13, False), (-14, True)])
def test_a_yes_cools_down_for_so_many_partitions_in_both_directions(later, yes):
    first = ask(window(*nights(10, 0)))
    as_of = partitions.shift("2024-06-10", later, "day")
    decision = ask(window(*nights(10, 0, as_of), as_of=as_of), past=[first])
    assert decision.retrain is yes
    assert f"as of 2024-06-10, {abs(later)} partitions away" in said(decision, "cool-down")


def test_a_no_does_not_cool_down():
    first = ask(window(*nights(0, 10)))
    assert not first.retrain
    assert ask(window(*nights(10, 0, "2024-06-11"), as_of="2024-06-11"), past=[first]).retrain


def test_a_repeat_of_a_decision_is_the_same_decision_and_no_cool_down():
    first = ask(window(*nights(10, 0)))
    again = ask(window(*nights(10, 0), report_html="/elsewhere.html"), past=[first, first])
    assert again == first


def test_the_same_night_with_other_data_is_another_decision_and_cools_down():
    first = ask(window(*nights(10, 0)))
    second = ask(window(*nights(10, 0), new=6000), past=[first])
    assert first.retrain
    assert not second.retrain
    assert first.id != second.id


def test_another_use_cases_decisions_do_not_matter():
    stranger = ask(window(*nights(10, 0))).model_copy(update={"use_case": "letters", "id": "other"})
    assert ask(window(*nights(10, 0)), past=[stranger]).retrain
    with pytest.raises(SpecError, match="'letters'"):
        ask(window().model_copy(update={"use_case": "letters"}))


def test_the_id_names_the_night_and_follows_what_was_decided_on():
    base = window(*nights(10, 0))
    first = ask(base)
    assert first.id.startswith("retrain-2024-06-10-")
    assert len(first.id) == len("retrain-2024-06-10-") + 12
    others = [
        ask(base.model_copy(update={"champion": CHAMPION.model_copy(update={"version": 4})})),
        ask(base.model_copy(update={"live": Estimate(value=0.1, low=0.1, high=0.1, rows=5000)})),
        ask(base, spec(share=0.6)),
        ask(base, spec(drift={"alarm": 0.3})),
    ]
    assert len({first.id, *(other.id for other in others)}) == 5


def test_an_hourly_use_case_cools_down_in_hours():
    hourly = type(use_case()).model_validate({**spec(cooldown=2).model_dump(mode="json"), "granularity": "hour"})
    first = ask(window(night("2024-06-10T00", 0.4), as_of="2024-06-10T00"), hourly)
    soon = ask(window(night("2024-06-10T01", 0.4), as_of="2024-06-10T01"), hourly, past=[first])
    later = ask(window(night("2024-06-10T02", 0.4), as_of="2024-06-10T02"), hourly, past=[first])
    assert (first.retrain, soon.retrain, later.retrain) == (True, False, True)


@given(
    order=st.permutations(range(30)),
    cooldown=st.integers(1, 40),
    repeats=st.lists(st.integers(0, 29), max_size=10),
)
@settings(max_examples=40, deadline=None)
def test_a_storm_of_thirty_alerts_in_any_order_gives_at_most_one_yes_a_cool_down(order, cooldown, repeats):
    case, past = spec(cooldown=cooldown), []
    for index in [*order, *repeats]:
        as_of = partitions.shift("2024-06-01", index, "day")
        past.append(ask(window(*nights(10, 0, as_of), as_of=as_of, live=0.1), case, past))
    yes = sorted({partitions.start(each.as_of, "day") for each in past if each.retrain})
    assert yes
    assert all((later - earlier).days >= cooldown for earlier, later in itertools.pairwise(yes))
    assert len({each.id for each in past if each.retrain}) == len(yes)


STATES = st.lists(
    st.tuples(
        st.sampled_from(["observed", "missing", "quarantined", "not_scored", "few_rows"]),
        st.floats(0, 2, allow_nan=False),
    ),
    max_size=15,
)


@given(
    states=STATES,
    live=st.none() | st.floats(0, 1),
    labels=st.integers(0, 1000),
    new=st.integers(0, 3000),
    backfill=st.booleans(),
    cooling=st.integers(0, 30),
)
@settings(max_examples=150, deadline=None)
def test_yes_is_never_said_on_unhealthy_data_in_a_backfill_or_in_a_cool_down(
    states, live, labels, new, backfill, cooling
):
    keys = [partitions.shift("2024-06-10", -i, "day") for i in range(len(states))][::-1]
    observed = [night(key, psi, state=state) for key, (state, psi) in zip(keys, states, strict=True)]
    before = partitions.shift("2024-06-10", -cooling, "day")
    past = [ask(window(*nights(10, 0, before), as_of=before, new=9999))]
    decision = ask(window(*observed, live=live, labels=labels, new=new), past=past, backfill=backfill)
    lost = sum(state in ("missing", "quarantined") for state, _ in states)
    judged = [psi for state, psi in states if state == "observed"]
    drifted = judged and 2 * len(judged) >= len(states) and sum(psi >= 0.25 for psi in judged) >= 0.5 * len(judged)
    decayed = live is not None and labels >= 200 and 0.67 - live > 0.02
    allowed = bool(states) and lost <= 0.1 * len(states) and new >= 1000 and cooling >= 14 and not backfill
    assert decision.retrain is bool((drifted or decayed) and allowed)
    assert decision == ask(window(*observed, live=live, labels=labels, new=new), past=past, backfill=backfill)


def test_a_signal_that_the_spec_does_not_name_is_said_and_asks_for_nothing():
    drifting, decaying = window(*nights(10, 0)), window(*nights(0, 10), live=0.5)
    assert not ask(drifting, spec(signals=["decay"])).retrain
    assert said(ask(drifting, spec(signals=["decay"])), "drift") == "drift: observed, but not a signal of this use case"
    assert ask(decaying, spec(signals=["decay"])).retrain
    assert not ask(decaying, spec(signals=["inputs", "scores"])).retrain
    assert ask(drifting, spec(signals=["inputs"])).retrain
    assert not ask(drifting, spec(signals=["scores"])).retrain
