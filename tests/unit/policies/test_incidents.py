"""What of a monitor run people are told: what, since when, how bad, and what to do."""

import pytest

from pipelines import partitions
from pipelines.policies.incidents import KINDS, conditions
from pipelines.records import DataHealth, Skew, TrainingOutcome
from tests.unit.policies.test_retraining import ask, night, nights, spec, window

KEYS = partitions.span("2024-06-01", "2024-06-10", "day")


def told(observed, case=None, decision=None):
    case = case or spec()
    found = conditions(observed, decision or ask(observed, case), case)
    assert tuple(each.kind for each in found) == KINDS
    for each in found:
        assert (each.state == "raised") == bool(each.what) == bool(each.remedy) == bool(each.partition), each
    return {each.kind: each for each in found}


def states(found):
    return {kind: each.state for kind, each in found.items()}


def series(*psis, **options):
    keys = KEYS[-len(psis) :]
    return window(*(night(key, psi, **options) for key, psi in zip(keys, psis, strict=True)))


def test_a_calm_window_ends_whatever_was_wrong_and_says_nothing_of_what_it_cannot_see():
    found = states(told(window(*nights(0, 10))))
    assert found == {**dict.fromkeys(KINDS, "over"), "skew": "unknown"}


def test_the_first_night_in_alarm_is_told_the_same_morning_as_a_warning():
    found = told(series(*[0.05] * 9, 0.6))["inputs"]
    assert (found.state, found.level, found.partition) == ("raised", "warning", "2024-06-10")
    assert found.what == "a feature drifts, in 1 of 10 judged partitions of the window: x PSI 0.600"


def test_what_lasts_is_an_alarm_since_its_first_night():
    found = told(series(0.4, 0.05, 0.05, *[0.4] * 7))["inputs"]
    assert (found.state, found.level, found.partition) == ("raised", "alarm", "2024-06-04")
    assert "a retraining was started (retrain-2024-06-10-" in found.remedy


def test_a_night_that_is_calm_again_ends_a_lone_one_but_not_what_the_window_still_holds():
    assert told(series(*[0.05] * 8, 0.6, 0.05))["inputs"].state == "over"
    assert told(series(*[0.4] * 9, 0.05))["inputs"].state == "raised"


@pytest.mark.parametrize("state", ["missing", "quarantined", "not_scored", "few_rows"])
def test_a_night_that_nobody_could_judge_neither_opens_nor_ends_drift(state):
    found = told(window(*nights(0, 9, **{state: 1})))
    assert states(found)["inputs"] == states(found)["scores"] == "unknown"


def test_scores_drift_on_their_own():
    found = told(series(*[0.05] * 10, score=0.5))
    assert (found["inputs"].state, found["scores"].state) == ("over", "raised")
    assert found["scores"].what.startswith("the scores drift, in 10 of 10")


def test_ignored_columns_and_warnings_are_no_incident():
    assert told(series(*[0.2] * 10))["inputs"].state == "over"
    assert told(series(*[0.5] * 10), spec(drift={"ignore": ["x"]}))["inputs"].state == "unknown"


def test_decay_is_told_with_its_figures_and_where_the_reasons_are():
    found = told(window(*nights(0, 10), live=0.6, new=10))["decay"]
    assert found.state == "raised"
    assert found.what.startswith("auc 0.6000 [0.5950, 0.6050] on 5000 matured labels, 0.0700 worse")
    assert "overnight decisions parcels --since 2024-06-10 --reasons" in found.remedy
    assert "started (retrain-" in told(window(*nights(0, 10), live=0.6))["decay"].remedy
    assert told(window(*nights(0, 10), live=None, labels=0))["decay"].state == "unknown"


def test_lost_partitions_are_one_incident_that_counts_them():
    found = told(window(*nights(0, 3, missing=6, quarantined=1)))["data"]
    assert found.partition == "2024-06-04"
    assert found.what == (
        "partitions of rows: 6 missing (2024-06-04, 2024-06-05, 2024-06-06, 2024-06-07, 2024-06-08 and 1 more), "
        "1 quarantined (2024-06-10)"
    )


def test_labels_that_are_late_or_disagree_and_skew_are_told():
    health = DataHealth(
        late_labels=("2024-06-05", "2024-06-06"),
        disagreeing_labels=3,
        skew=Skew(partition="2024-06-10", rows=1000, columns={"x": 12}),
    )
    found = told(window(*nights(0, 10), health=health))
    assert (found["labels"].partition, found["labels"].level) == ("2024-06-05", "warning")
    assert "2024-06-05, 2024-06-06 are not published; 3 keys have labels that disagree" in found["labels"].what
    assert found["skew"].what.endswith("differ between scoring and training: x in 12")
    calm = DataHealth(skew=Skew(partition="2024-06-10", rows=1000))
    assert told(window(*nights(0, 10), health=calm))["skew"].state == "over"


def test_a_person_is_asked_when_the_last_challenger_lost_on_this_data():
    from pipelines.policies.retraining import decide

    observed = window(*nights(10, 0), champion_as_of="2024-05-01")
    lost = TrainingOutcome(as_of="2024-06-09", newest="2024-06-08", refused=True, new_labels=10)
    decision = decide(observed, spec(), past=[], trainings=[lost], backfill=False)
    found = told(observed, decision=decision)["person"]
    assert (found.state, found.level) == ("raised", "alarm")
    assert "the one trained as of 2024-06-09 was refused" in found.what
