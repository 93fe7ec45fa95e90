"""The gates of quality: what makes a comparison one, how sure it must be, and where it is looked for."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.policies.gates import RULES, evaluate_gates, quality
from pipelines.records import SliceGain
from tests.unit.policies.test_gates import (
    card,
    compared,
    evaluation,
    holdout,
    interval,
    reason,
    refused,
    use_case,
    verdicts,
)


def met(challenger=0.70, champion=0.66, doubt=0.0, *, slices=(), worst=None, **changes):
    """A challenger that met a champion."""
    found = compared(challenger, champion, doubt, slices=slices, worst=worst)
    return evaluation(challenger, champion=champion, **{"comparisons": (found,), **changes})


def fell(gain, name="origin = EWR", rows=345):
    return SliceGain(slice=name, rows=rows, mine=0.7 + gain, other=0.7, gain=gain)


def judged(name, told, **gates):
    """One gate's verdict, through all of them."""
    report = evaluate_gates(told, use_case(**gates))
    return verdicts(report)[name], reason(report, name)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            {"learned": {"challenger": "2024-05-01"}},
            "the challenger learned from data of 2024-05-01, the holdout begins",
        ),
        ({"learned": {"challenger": "2024-06-01"}}, "the challenger learned from data of 2024-06-01"),
        ({"learned": {}}, "nobody knows what the challenger learned from"),
        ({"learned": {"challenger": "2024-4-30"}}, "'2024-4-30' is no key of a day"),
        ({"learned": {"challenger": "2024-04-30T05"}}, "'2024-04-30T05' is no key of a day"),
        ({"holdout": holdout(100, partitions=("2024-05-01", "2024-05-15"))}, "labels until 2024-05-14 had matured"),
        ({"holdout": holdout(100, partitions=("2024-05-03", "2024-05-02"))}, "the holdout runs backwards"),
        ({"holdout": holdout(100, partitions=("May", "June"))}, "'May' is no key of a day"),
        ({"holdout": holdout(100, as_of="")}, "as_of: '' is no key of a day"),
        ({"holdout": holdout(100, snapshots=())}, "not pinned by snapshots"),
        ({"holdout": holdout(100).model_copy(update={"digest": ""})}, "not pinned by snapshots and a digest"),
        ({"holdout": holdout(99)}, "the challenger was measured on 100 rows, not 99"),
        ({"use_case": "letters"}, "the evaluation is of letters"),
    ],
)
def test_rows_that_prove_nothing_are_refused_and_the_reason_says_which(changes, why):
    passed, told = judged("comparable", evaluation(**changes))
    assert not passed
    assert why in told


@pytest.mark.parametrize("newest", ["2024-05-01", "2024-05-14", "2024-06-30"])
def test_a_champion_that_learned_from_the_holdout_makes_it_no_holdout(newest):
    told = met(learned={"challenger": "2024-04-30", "champion": newest})
    assert judged("comparable", told)[0] is False
    assert judged("comparable", met())[0] is True
    assert judged("comparable", met(learned={"challenger": "2024-04-30"}))[0] is False


def test_hours_are_compared_with_hours():
    spec = use_case().model_copy(update={"granularity": "hour"})
    partitions = ("2024-05-01T00", "2024-05-01T09")
    told = evaluation(
        holdout=holdout(100, partitions=partitions, as_of="2024-05-01T10"), learned={"challenger": "2024-04-30T23"}
    )
    assert quality.comparable(told, spec).passed
    late = told.model_copy(update={"learned": {"challenger": "2024-05-01T00"}})
    assert not quality.comparable(late, spec).passed


def test_a_challenger_of_older_data_is_refused_unless_the_spec_allows_it():
    told = met(learned={"challenger": "2024-04-20", "champion": "2024-04-30"})
    assert refused(evaluate_gates(told, use_case())) == {"older"}
    assert reason(evaluate_gates(told, use_case()), "older") == (
        "the challenger learned until 2024-04-20, the champion until 2024-04-30; gates.allow_older is False"
    )
    assert evaluate_gates(told, use_case(allow_older=True)).passed
    assert judged("older", met(learned={"champion": "2024-04-30"}), allow_older=True)[0] is False
    assert judged("older", met(learned={"challenger": "2024-04-30"}), allow_older=True)[0] is False
    assert judged("older", evaluation(learned={}))[0] is True


@pytest.mark.parametrize(
    ("changes", "gates", "why"),
    [
        ({}, {"min_rows": 101}, "100 holdout rows, at least 101 are asked for"),
        ({"rarest_class": 9}, {}, "9 rows of the rarest class, at least 10 are asked for"),
        ({"rarest_class": None}, {}, "not measured: nobody looked"),
        ({"rarest_class": None, "errors": {"classes": "ValueError: no"}}, {}, "not measured: ValueError: no"),
        ({"rows_needed": 101}, {"detectable": 0.01}, "a gain of 0.0100 over the margin is seen with 80% on 101 rows"),
        ({"rows_needed": None}, {"detectable": 0.01}, "not measured: nobody looked"),
    ],
)
def test_too_few_rows_are_refused_whatever_they_show(changes, gates, why):
    passed, told = judged("rows", met(**changes), **gates)
    assert not passed
    assert why in told


def test_enough_rows_are_enough_and_a_first_champion_needs_none_to_see_a_gain():
    assert judged("rows", met(rows_needed=100, rarest_class=10), min_rows=100, detectable=0.01)[0]
    assert judged("rows", met(rows_needed=101))[0]
    assert judged("rows", evaluation(), detectable=0.01)[0]
    numbers = use_case("regression", "rmse", bound=20.0)
    assert quality.rows(evaluation(15.0, metric="rmse", greater=False, rarest_class=None), numbers).passed


def test_only_a_lower_end_past_the_margin_makes_a_champion():
    passed, told = judged("champion", met(0.70, 0.66, doubt=0.03), margin_over_champion=0.01)
    assert passed
    assert told == (
        "auc 0.7000 against 0.6600 of champion 3: 0.0400 better, with 95% no less than 0.0100 better "
        "(interval +0.0100 to +0.0700), at least 0.0100 better is asked for"
    )
    passed, told = judged("champion", met(0.70, 0.66, doubt=0.0301), margin_over_champion=0.01)
    assert not passed
    assert "with 95% no less than 0.0099 better" in told
    assert judged("champion", met(0.66, 0.66, doubt=0.02), margin_over_champion=-0.02)[0]
    assert not judged("champion", met(0.66, 0.66, doubt=0.02))[0]


@pytest.mark.parametrize(
    ("comparisons", "why"),
    [
        ((), "not measured: nobody looked"),
        ((compared(0.70, 0.66), compared(0.70, 0.66)), "not measured: nobody looked"),
        ((compared(0.70, 0.66).model_copy(update={"against": "teacher"}),), "not measured: nobody looked"),
        ((compared(0.71, 0.66),), "the comparison says 0.0500 better, the scorecards say 0.0400 better"),
        ((compared(0.66, 0.70),), "the comparison says 0.0400 worse"),
    ],
)
def test_a_gain_that_is_not_of_these_two_is_no_gain(comparisons, why):
    passed, told = judged("champion", met(comparisons=comparisons))
    assert not passed
    assert why in told


@pytest.mark.parametrize(
    "changes",
    [{"low": math.nan}, {"high": math.inf}, {"value": math.nan}, {"level": 0.5}, {"resamples": 100}],
)
def test_an_interval_that_is_not_what_the_spec_asks_for_makes_no_champion(changes):
    whole = compared(0.70, 0.66)
    broken = whole.model_copy(update={"gain": whole.gain.model_copy(update=changes)})
    assert judged("champion", met(comparisons=(whole,)))[0]
    assert not judged("champion", met(comparisons=(broken,)))[0]


def test_a_slice_that_falls_is_refused_by_name_declared_or_found():
    fine = tuple(fell(-0.01 * i, f"carrier = {i}") for i in range(5))
    assert judged("slices", met(slices=fine, worst=fell(-0.05)))[0]
    passed, told = judged("slices", met(slices=(*fine, fell(-0.0501))))
    assert not passed
    assert told == (
        "origin = EWR: 0.0501 worse on 345 rows; at most 0.0500 worse is accepted, of 6 declared slices and none found"
    )
    passed, told = judged("slices", met(slices=fine, worst=fell(-0.2, "x < 3 and origin = JFK")))
    assert not passed
    assert told.startswith("x < 3 and origin = JFK: 0.2000 worse on 345 rows; at most 0.0500 worse is accepted")


def test_no_slice_is_hidden_by_another_or_by_a_number_that_is_none():
    many = tuple(fell(-0.1 - 0.001 * i, f"carrier = {i}") for i in range(9))
    passed, told = judged("slices", met(slices=many))
    assert not passed
    assert told.startswith("carrier = 8: 0.1080 worse")
    assert "; 4 more; " in told
    assert not judged("slices", met(worst=fell(math.nan)))[0]
    assert judged("slices", met())[1] == "no slice has 300 rows"
    assert judged("slices", met(comparisons=()))[1] == "not measured: nobody looked"


def test_probabilities_that_are_off_are_refused_and_a_regression_has_none():
    assert judged("calibration", evaluation(calibration=0.15))[0]
    assert judged("calibration", evaluation(calibration=0.1501)) == (
        False,
        "expected calibration error 0.1501, at most 0.1500 is asked for",
    )
    for broken in (None, math.nan):
        assert not judged("calibration", evaluation(calibration=broken))[0]
    numbers = use_case("regression", "rmse", bound=20.0)
    assert quality.calibration(evaluation(15.0, metric="rmse", greater=False, calibration=None), numbers).passed


def test_baselines_meet_what_is_served_on_the_rows_of_its_own_training():
    whole = evaluation(0.9, lightgbm=0.675)
    poor = tuple(card("student_int8", 0.66) if each.model == "student_int8" else each for each in whole.others)
    assert "lightgbm" in refused(evaluate_gates(whole.model_copy(update={"others": poor}), use_case()))
    later = met(0.60, 0.55, lightgbm=0.675)
    good = tuple(card("student_int8", 0.68) if each.model == "student_int8" else each for each in later.others)
    assert "lightgbm" in refused(evaluate_gates(later, use_case()))
    assert evaluate_gates(later.model_copy(update={"others": good}), use_case()).passed
    for served in ("", "teacher2"):
        lost = evaluate_gates(whole.model_copy(update={"served": served}), use_case())
        assert {"lightgbm", "constant"} <= refused(lost)


@pytest.mark.parametrize("name", list(RULES))
def test_a_gate_that_breaks_has_refused_and_the_others_still_speak(name, monkeypatch):
    def broken(evaluation, spec):
        raise ZeroDivisionError("by a mistake")

    monkeypatch.setitem(RULES, name, broken)
    report = evaluate_gates(met(), use_case())
    assert refused(report) == {name}
    assert reason(report, name) == "the gate itself failed: ZeroDivisionError: by a mistake"
    assert len(report.gates) == len(RULES)


def test_a_first_champion_needs_the_absolute_gates_alone():
    report = evaluate_gates(
        evaluation(), use_case(margin_over_champion=0.5, detectable=0.001, max_slice_loss=0.0, confidence=0.99)
    )
    assert report.passed
    for name in ("champion", "slices", "older"):
        assert reason(report, name) == "there is no champion yet"
    for name, changes in {"bound": {"challenger": 0.59}, "calibration": {"calibration": 0.2}}.items():
        assert name in refused(evaluate_gates(evaluation(**changes), use_case()))


def test_the_rows_are_checked_first():
    assert list(RULES)[:2] == ["comparable", "rows"]


numbers = st.floats(0, 1)
gains = st.lists(st.floats(-0.2, 0.2), max_size=3)


@given(
    challenger=numbers,
    champion=numbers,
    doubt=st.floats(0, 0.1),
    margin=st.floats(-0.1, 0.1),
    found=gains,
    error=st.floats(0, 0.3),
    better=st.floats(0, 0.5),
    surer=st.floats(0, 1),
)
def test_better_surer_and_better_calibrated_never_turns_a_pass_into_a_refusal(
    challenger, champion, doubt, margin, found, error, better, surer
):
    spec = use_case(margin_over_champion=margin)
    before = met(challenger, champion, doubt, slices=tuple(map(fell, found)), calibration=error)
    after = met(
        challenger + better,
        champion,
        doubt * surer,
        slices=tuple(fell(gain + better) for gain in found),
        calibration=error * surer,
    )
    improved = verdicts(evaluate_gates(after, spec))
    assert all(improved[name] for name, passed in verdicts(evaluate_gates(before, spec)).items() if passed)


@given(challenger=numbers, champion=numbers, doubt=st.floats(0, 0.1), margin=st.floats(-0.1, 0.1))
def test_a_champion_is_made_exactly_when_the_lower_end_reaches_the_margin(challenger, champion, doubt, margin):
    told = met(challenger, champion, doubt)
    low = told.comparisons[0].gain.low
    if abs(low - margin) > 1e-9:
        assert judged("champion", told, margin_over_champion=margin)[0] == (low > margin)


def test_an_interval_of_the_metric_does_not_stand_for_one_of_the_gain():
    told = met(comparisons=()).model_copy(update={"interval": interval(0.70)})
    assert "champion" in refused(evaluate_gates(told, use_case()))
