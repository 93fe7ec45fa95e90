import itertools
import math

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines import partitions
from pipelines.errors import SpecError
from pipelines.policies.retraining import decide
from pipelines.records import (
    ColumnDrift,
    DataHealth,
    Estimate,
    ModelRef,
    Observation,
    Observations,
    Skew,
    TrainingOutcome,
)
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

    def drifted(name, value):
        level = "unknown" if math.isnan(value) else "alarm" if value >= 0.25 else "warning" if value >= 0.1 else "calm"
        return ColumnDrift(column=name, psi=value, null_share=0.0, level=level)

    return Observation(
        partition=key,
        rows=900 if seen else 0,
        state=state,
        drift=(drifted(column, psi),) if seen else (),
        score=drifted("score", score) if seen else None,
    )


def window(*nights, as_of="2024-06-10", live=0.67, champion=0.67, labels=5000, new=5000, greater=True, **other):
    """Every observed night has the metric of the whole window."""
    if live is not None:
        figure = Estimate(value=live, low=live - 0.02, high=live + 0.02, rows=500)
        nights = [each.model_copy(update={"quality": figure}) if each.state == "observed" else each for each in nights]
    return Observations(
        use_case="parcels",
        as_of=as_of,
        champion=CHAMPION,
        champion_metric=champion,
        metric="auc",
        greater_is_better=greater,
        window=tuple(nights),
        live=None if live is None else Estimate(value=live, low=live - 0.005, high=live + 0.005, rows=labels),
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
    assert said(decision, "inputs") == (
        "inputs: 5 of 10 judged partitions (50.0%) are in alarm, 5 with warnings; 50.0% make an alarm: "
        "x in 5 (worst 0.4000)"
    )
    assert [signal.level for signal in decision.signals] == ["alarm", "calm", "calm", "calm"]
    assert (decision.signals[0].columns, decision.signals[0].since) == (("x",), "2024-06-01")
    assert len(decision.reasons) == 11


def test_fewer_partitions_in_alarm_are_a_no_with_the_same_reasons_listed():
    decision = ask(window(*nights(4, 6)))
    assert not decision.retrain
    assert "4 of 10 judged partitions (40.0%)" in said(decision, "inputs")
    assert len(decision.reasons) == 11


def test_warnings_never_retrain():
    keys = partitions.span("2024-06-01", "2024-06-10", "day")
    decision = ask(window(*(night(key, 0.2, score=0.2) for key in keys), live=0.655))
    assert [signal.level for signal in decision.signals] == ["warning", "warning", "warning", "calm"]
    assert not decision.retrain


def test_drift_of_the_score_counts_like_a_columns():
    keys = partitions.span("2024-06-01", "2024-06-10", "day")
    decision = ask(window(*(night(key, score=0.3) for key in keys)))
    assert decision.retrain
    assert "the score in 10 (worst 0.3000)" in said(decision, "scores")


def test_an_ignored_columns_drift_is_no_alarm():
    assert ask(window(*nights(10, 0))).retrain
    assert not ask(window(*nights(10, 0)), spec(drift={"ignore": ["x"]})).retrain


def test_decay_alone_asks_for_a_retraining():
    decision = ask(window(*nights(0, 10), live=0.64))
    assert decision.retrain
    assert said(decision, "decay") == (
        "decay: auc 0.6400 [0.6350, 0.6450] on 5000 matured labels, 0.0300 worse than the champion's 0.6700; "
        "more than 0.0200 worse, beyond what chance gives, is an alarm"
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
    assert said(decision, "inputs") == "inputs: not enough data: 4 of 10 partitions could be judged, 5 are needed"
    assert decision.signals[0].level == "unknown"


def test_an_empty_window_is_not_enough_data_and_not_healthy():
    decision = ask(window())
    assert not decision.retrain
    assert "not enough data" in said(decision, "inputs")
    assert said(decision, "data") == "data: the window is empty"


def test_a_partition_whose_drift_is_no_number_is_not_judged():
    keys = partitions.span("2024-06-01", "2024-06-10", "day")
    decision = ask(window(*(night(key, math.nan) for key in keys)))
    assert "not enough data: 0 of 10" in said(decision, "inputs")


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
        ask(base.model_copy(update={"live": Estimate(value=0.1, low=0.09, high=0.11, rows=5000)})),
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
@example(states=[("observed", 0.0)] * 2, live=0.0, labels=200, new=1000, backfill=False, cooling=14)
@example(states=[("observed", 0.0)] * 3, live=0.0, labels=200, new=1000, backfill=False, cooling=14)
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
    decayed = live is not None and labels >= 200 and len(judged) >= 3 and 0.67 - live > 0.02
    allowed = bool(states) and lost <= 0.1 * len(states) and new >= 1000 and cooling >= 14 and not backfill
    assert decision.retrain is bool((drifted or decayed) and allowed)
    assert decision == ask(window(*observed, live=live, labels=labels, new=new), past=past, backfill=backfill)


def test_a_signal_that_the_spec_does_not_name_is_said_and_asks_for_nothing():
    drifting, decaying = window(*nights(10, 0)), window(*nights(0, 10), live=0.5)
    assert not ask(drifting, spec(signals=["decay"])).retrain
    assert "observed, but not a signal of this use case" in said(ask(drifting, spec(signals=["decay"])), "inputs")
    assert ask(decaying, spec(signals=["decay"])).retrain
    assert not ask(decaying, spec(signals=["inputs", "scores"])).retrain
    assert ask(drifting, spec(signals=["inputs"])).retrain
    assert not ask(drifting, spec(signals=["scores"])).retrain


def test_decay_within_chance_warns_and_does_not_retrain():
    unsure = Estimate(value=0.64, low=0.6, high=0.68, rows=400)
    decision = ask(window(*nights(0, 10), labels=400).model_copy(update={"live": unsure}))
    assert not decision.retrain
    assert decision.signals[2].level == "warning"


def test_a_lone_bad_night_is_none_and_enough_windows_in_alarm_are():
    case = spec(raised=2, of=3, cooldown=0)
    past = []
    for day, alarms in (("2024-06-10", 10), ("2024-06-11", 0), ("2024-06-12", 10), ("2024-06-20", 10)):
        past.append(ask(window(*nights(alarms, 10 - alarms, day), as_of=day), case, past))
    assert [each.retrain for each in past] == [False, False, True, False]
    assert "2 of the last 3" in said(past[2], "windows")


def test_windows_of_another_champion_or_of_a_backfill_do_not_count():
    case = spec(raised=2, of=5)
    first = ask(window(*nights(10, 0)), case)
    now = window(*nights(10, 0, "2024-06-11"), as_of="2024-06-11")
    assert ask(now, case, [first]).retrain
    assert not ask(now, case, [first.model_copy(update={"champion": 2})]).retrain
    assert not ask(now, case, [ask(window(*nights(10, 0)), case, backfill=True)]).retrain


def test_no_more_retrainings_than_the_month_allows():
    case, past = spec(cooldown=5, monthly=2), []
    for index in range(60):
        day = partitions.shift("2024-06-01", index, "day")
        past.append(ask(window(*nights(10, 0, day), as_of=day), case, past))
    months = [each.as_of[:7] for each in past if each.retrain]
    assert {month: months.count(month) for month in months} == {"2024-06": 2, "2024-07": 2}
    assert "2 retrainings were decided on in 2024-06, 2 are the most" in said(past[20], "month")


def test_an_old_champion_is_retrained_without_any_alarm_if_its_data_is_good():
    case = spec(max_age=30)
    quiet = window(*nights(0, 10)).model_copy(update={"champion_as_of": "2024-05-11"})
    assert ask(quiet, case).retrain
    assert "30 partitions ago" in said(ask(quiet, case), "age")
    assert not ask(quiet, spec()).retrain
    assert not ask(quiet.model_copy(update={"champion_as_of": "2024-05-12"}), case).retrain
    assert not ask(quiet.model_copy(update={"new_labels": 0}), case).retrain
    unknown = quiet.model_copy(update={"champion_as_of": None})
    assert (ask(unknown, case).retrain, ask(unknown, case).signals[3].level) == (False, "unknown")


def lost(as_of="2024-06-09", new=0, **other):
    told = {"refused": True, "new_labels": new, "newest": "2024-06-08", **other}
    return TrainingOutcome.model_validate({"as_of": as_of, **told})


def test_a_challenger_that_lost_on_the_same_data_is_not_tried_again_and_a_person_is_asked():
    drifting = window(*nights(10, 0)).model_copy(update={"champion_as_of": "2024-05-01"})
    decision = decide(drifting, spec(), past=[], trainings=[lost()], backfill=False)
    assert (decision.retrain, decision.escalate) == (False, True)
    assert "0 labels have matured since 2024-06-08" in said(decision, "challenger")
    for enough in (
        [lost(new=1000)],
        [lost("2024-04-30")],  # to the champion before
        [lost(refused=False)],  # it failed
        [lost(), lost("2024-06-10", promoted=True, refused=False)],
    ):
        decision = decide(drifting, spec(), past=[], trainings=enough, backfill=False)
        assert (decision.retrain, decision.escalate) == (True, False)
    calm = window(*nights(0, 10)).model_copy(update={"champion_as_of": "2024-05-01"})
    assert not decide(calm, spec(), past=[], trainings=[lost()], backfill=False).escalate
    assert not decide(drifting, spec(), past=[], trainings=[lost()], backfill=True).escalate


@pytest.mark.parametrize(
    "health",
    [
        DataHealth(skew=Skew(partition="2024-06-10", rows=900, columns={"x": 3})),
        DataHealth(disagreeing_labels=600),
    ],
)
def test_skew_and_labels_that_disagree_are_unhealthy(health):
    decision = ask(window(*nights(10, 0)).model_copy(update={"health": health}))
    assert not decision.retrain
    fine = DataHealth(skew=Skew(partition="2024-06-10", rows=900), disagreeing_labels=5)
    assert ask(window(*nights(10, 0)).model_copy(update={"health": fine})).retrain


def test_the_training_window_follows_the_decision():
    assert ask(window(*nights(10, 0))).since is None
    assert ask(window(*nights(10, 0)), spec(train_on="last", last=90)).since == "2024-03-13"
    changed = ask(window(*nights(10, 0)), spec(train_on="after_change", last=60))
    assert changed.since == "2024-04-12", "no fewer than `last`"
    assert ask(window(*nights(0, 10)), spec(train_on="last", last=90)).since is None, "there is no training"


def test_the_policys_digest_is_of_everything_that_it_says():
    first, other = ask(window(*nights(10, 0))), ask(window(*nights(10, 0)), spec(drift={"false_alarms": 0.02}))
    assert len({first.policy, other.policy}) == 2


@given(states=STATES, extra=st.lists(st.booleans(), min_size=15, max_size=15), live=st.none() | st.floats(0, 1))
@settings(max_examples=100, deadline=None)
def test_more_alarms_never_turn_a_yes_into_a_no(states, extra, live):
    keys = [partitions.shift("2024-06-10", -i, "day") for i in range(len(states))][::-1]
    calm = [night(key, psi, state=state) for key, (state, psi) in zip(keys, states, strict=True)]
    louder = [
        night(key, 1.0 if more else psi, state=state)
        for key, (state, psi), more in zip(keys, states, extra, strict=False)
    ]
    if ask(window(*calm, live=live)).retrain:
        assert ask(window(*louder, live=live)).retrain


def test_one_or_two_nights_say_nothing_of_decay_however_many_labels_they_have():
    few = ask(window(*nights(0, 2), live=0.5, labels=100_000))
    assert said(few, "decay") == "decay: not enough data: 2 partitions with a metric, 3 are needed: nights differ"
    assert ask(window(*nights(0, 3), live=0.5)).signals[2].level == "alarm"
