import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.policies.gates import RULES, evaluate_gates
from pipelines.records import Comparison, Evaluation, Holdout, Interval, Scorecard, SnapshotRef
from pipelines.spec import UseCase
from tests.unit.policies.measured import HEALTHY


def use_case(task="binary", metric="auc", *, served_as="int8", **gates):
    labels = {"binary": {"positive": {"above": 0}}, "regression": {}, "multiclass": {"classes": ["a", "b"]}}
    return UseCase.model_validate(
        {
            "name": "parcels",
            "title": "Parcels",
            "description": "Parcels",
            "owner": "team",
            "schedule": "0 2 * * *",
            "monitor_schedule": "0 6 * * *",
            "tables": {
                "rows": {
                    "path": "rows/{partition}.csv",
                    "columns": {"id": {"type": "int"}, "x": {"type": "float"}, "y": {"type": "float"}},
                    "key": ["id"],
                }
            },
            "label": {"table": "rows", "column": "y", "task": task, **labels[task]},
            "features": {"numeric": ["x"]},
            "training": {"compression": served_as},
            "gates": {"metric": metric, "bound": 0.6, "max_loss_to_lightgbm": 0.01, "max_loss_to_fp32": 0.003, **gates},
        }
    )


def card(model, value, rows=100, metric="auc", calibration=None):
    metrics = {} if value is None else {metric: value}
    return Scorecard(model=model, rows=rows, metrics=metrics, calibration_error=calibration)


def holdout(rows, **changes):
    pinned = SnapshotRef(use_case="parcels", table="rows", store="delta", version="7")
    told = {"partitions": ("2024-05-01", "2024-05-14"), "as_of": "2024-05-15", "snapshots": (pinned,), **changes}
    return Holdout(path="holdout.parquet", rows=rows, digest="d" * 64, **told)


def interval(value, doubt=0.0, **changes):
    told = {"level": 0.95, "resamples": 1000, **changes}
    return Interval(value=value, low=value - doubt, high=value + doubt, deviation=doubt / 1.645, **told)


def compared(challenger, champion, doubt=0.0, *, greater=True, slices=(), worst=None):
    """The comparison of two metrics that are sure to `doubt`."""
    gain = challenger - champion if greater else champion - challenger
    return Comparison(against="champion", gain=interval(gain, doubt), slices=slices, worst=worst)


def evaluation(
    challenger=0.68,
    *,
    champion=None,
    champion_version=None,
    lightgbm=0.675,
    constant=0.5,
    fp32=0.681,
    served=None,
    metric="auc",
    greater=True,
    rows=100,
    single=None,
    doubt=0.0,
    calibration=0.02,
    **changes,
):
    """What a measured challenger looks like: everything that a gate asks for is there."""
    own = ("student_int8", challenger if served is None else served)
    others = (own, ("lightgbm", lightgbm), ("constant", constant), ("student_fp32", fp32), ("teacher", 0.69))
    rivals = None not in (challenger, champion)
    told = {
        "use_case": "parcels",
        "metric": metric,
        "greater_is_better": greater,
        "holdout": holdout(rows),
        "learned": {"challenger": "2024-04-30"} | ({} if champion is None else {"champion": "2024-04-30"}),
        "challenger": card("challenger", challenger, metric=metric, calibration=calibration),
        "champion": None if champion is None else card("champion", champion, metric=metric, calibration=0.02),
        "champion_version": champion_version if champion_version or champion is None else 3,
        "others": tuple(card(model, value, metric=metric) for model, value in others),
        "served": "student_int8",
        **HEALTHY,
        "comparisons": (compared(challenger, champion, doubt, greater=greater),) if rivals else (),
        "rarest_class": 40,
        "single_features": {"x": 0.61} if single is None else single,
    }
    return Evaluation(**told | changes)


def verdicts(report):
    return {gate.name: gate.passed for gate in report.gates}


def refused(report):
    return {gate.name for gate in report.gates if not gate.passed}


def reason(report, name):
    return next(gate.reason for gate in report.gates if gate.name == name)


def test_a_good_challenger_passes_every_gate_and_every_reason_holds_numbers():
    report = evaluate_gates(evaluation(champion=0.67), use_case())
    assert report.passed
    assert list(verdicts(report)) == list(RULES)
    assert reason(report, "bound") == "auc 0.6800, at least 0.6000 is asked for"
    assert reason(report, "champion") == (
        "auc 0.6800 against 0.6700 of champion 3: 0.0100 better, with 95% no less than 0.0100 better "
        "(interval +0.0100 to +0.0100), at most 0.0000 worse is accepted"
    )
    assert reason(report, "lightgbm").startswith("auc 0.6800 against 0.6750 of lightgbm: 0.0050 better")


def test_without_a_champion_the_first_model_needs_to_beat_only_the_baselines():
    report = evaluate_gates(evaluation(), use_case(margin_over_champion=0.5))
    assert report.passed
    assert reason(report, "champion") == "there is no champion yet"


@pytest.mark.parametrize(
    ("case", "gates", "failing"),
    [
        ({"challenger": 0.59, "lightgbm": 0.59, "fp32": 0.59}, {}, {"bound"}),
        ({"champion": 0.681}, {}, {"champion"}),
        ({"champion": 0.68}, {"margin_over_champion": 0.001}, {"champion"}),
        ({"lightgbm": 0.6901}, {}, {"lightgbm"}),
        ({"constant": 0.68}, {}, {"constant"}),
        ({"fp32": 0.6831}, {}, {"quantization"}),
        ({"challenger": 0.4}, {}, {"bound", "lightgbm", "constant", "quantization"}),
    ],
)
def test_each_gate_fails_for_its_own_reason(case, gates, failing):
    report = evaluate_gates(evaluation(**case), use_case(**gates))
    assert not report.passed
    assert refused(report) == failing
    for name in failing:
        assert name in report.reason


@pytest.mark.parametrize(
    ("case", "gates"),
    [
        ({"challenger": 0.6, "lightgbm": 0.6, "fp32": 0.6}, {}),
        ({"champion": 0.67}, {"margin_over_champion": 0.01}),
        ({"challenger": 0.67, "lightgbm": 0.68, "fp32": 0.67}, {}),
        ({"challenger": 0.67, "lightgbm": 0.67, "fp32": 0.673}, {}),
    ],
)
def test_a_bound_that_is_met_exactly_is_met(case, gates):
    assert evaluate_gates(evaluation(**case), use_case(**gates)).passed


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("who", ["challenger", "champion", "lightgbm", "constant", "fp32"])
def test_a_metric_that_is_missing_or_no_number_fails_closed(who, value):
    report = evaluate_gates(evaluation(**{"champion": 0.6, "champion_version": 3, who: value}), use_case())
    assert not report.passed
    gate = {"challenger": "bound", "fp32": "quantization"}.get(who, who)
    assert gate in refused(report)


@pytest.mark.parametrize("who", ["lightgbm", "constant", "student_fp32"])
@pytest.mark.parametrize("copies", [0, 2])
def test_a_baseline_that_is_missing_or_there_twice_fails_closed(who, copies):
    whole = evaluation()
    same = [each for each in whole.others if each.model == who]
    rest = tuple(each for each in whole.others if each.model != who)
    report = evaluate_gates(whole.model_copy(update={"others": (*rest, *(same * copies))}), use_case())
    assert refused(report) == {{"student_fp32": "quantization"}.get(who, who)}


def test_a_champion_that_was_not_measured_blocks_the_challenger():
    report = evaluate_gates(evaluation(champion_version=3), use_case())
    assert refused(report) == {"comparable", "older", "champion", "slices"}
    assert reason(report, "champion") == "no scorecards of champion 3, one is needed"


def test_a_comparison_on_other_rows_is_no_comparison():
    whole = evaluation(champion=0.6)
    other = whole.model_copy(update={"champion": card("student_int8", 0.6, rows=99)})
    assert refused(evaluate_gates(other, use_case())) == {"comparable"}
    assert reason(evaluate_gates(other, use_case()), "comparable") == "the champion was measured on 99 rows, not 100"
    assert refused(evaluate_gates(evaluation(rows=150), use_case())) == {"comparable"}


def test_an_evaluation_by_another_metric_or_of_another_use_case_is_refused():
    assert "comparable" in refused(evaluate_gates(evaluation(), use_case(metric="log_loss")))
    assert "comparable" in refused(evaluate_gates(evaluation(greater=False), use_case()))
    stranger = evaluation().model_copy(update={"use_case": "letters"})
    assert refused(evaluate_gates(stranger, use_case())) == {"comparable"}


def test_where_less_is_better_every_gate_turns_round():
    spec = use_case("regression", "rmse", bound=20.0, max_loss_to_lightgbm=1.0, max_loss_to_fp32=0.5)
    base = {"metric": "rmse", "greater": False}
    good = evaluation(15.0, champion=15.5, lightgbm=14.5, constant=30.0, fp32=14.8, **base)
    assert evaluate_gates(good, spec).passed
    bad = evaluation(21.0, champion=15.5, lightgbm=14.5, constant=20.0, fp32=14.8, **base)
    assert refused(evaluate_gates(bad, spec)) == {"bound", "champion", "lightgbm", "constant", "quantization"}
    assert "worse" in reason(evaluate_gates(bad, spec), "constant")


def test_an_uncompressed_student_has_nothing_to_lose_by_compression():
    whole = evaluation()
    others = tuple(each for each in whole.others if not each.model.startswith("student"))
    others = (*others, card("student_fp32", 0.68))
    changes = {"others": others, "served": "student_fp32", "fp32": None}
    report = evaluate_gates(whole.model_copy(update=changes), use_case(served_as="none"))
    assert report.passed


@given(
    challenger=st.floats(0, 1),
    champion=st.floats(0, 1),
    lightgbm=st.floats(0, 1),
    constant=st.floats(0, 1),
    fp32=st.floats(0, 1),
    better=st.floats(0, 0.5),
)
def test_a_better_challenger_never_passes_fewer_gates(challenger, champion, lightgbm, constant, fp32, better):
    others = {"champion": champion, "lightgbm": lightgbm, "constant": constant, "fp32": fp32}
    worse = verdicts(evaluate_gates(evaluation(challenger, **others), use_case()))
    improved = verdicts(evaluate_gates(evaluation(challenger + better, **others), use_case()))
    assert all(improved[name] for name, passed in worse.items() if passed)


def test_a_feature_that_knows_the_outcome_is_refused_by_name_and_figure():
    found = evaluate_gates(evaluation(single={"x": 0.9991}), use_case())
    assert refused(found) == {"leakage"}
    assert found.reason == (
        "leakage: x 0.9991: AUC of a feature alone, at most 0.9800 is believed; does it hold the outcome?"
    )
    assert evaluate_gates(evaluation(single={"x": 0.9991}), use_case(max_single_feature=1.0)).passed


def test_a_strong_honest_feature_passes_at_the_limit_itself():
    report = evaluate_gates(evaluation(single={"x": 0.93}), use_case(max_single_feature=0.93))
    assert report.passed
    assert reason(report, "leakage") == "x 0.9300: AUC of a feature alone, at most 0.9300 is believed"


@pytest.mark.parametrize("single", [{}, {"y": 0.5}, {"x": math.nan}, {"x": math.inf}])
def test_a_feature_that_nobody_measured_is_not_believed(single):
    report = evaluate_gates(evaluation(single=single), use_case())
    assert refused(report) == {"leakage"}
    assert reason(report, "leakage") == "nobody measured what these features say by themselves: x"


def test_an_evaluation_of_before_there_were_figures_is_read_and_refused():
    old = evaluation().model_dump(mode="json")
    del old["single_features"]
    assert refused(evaluate_gates(Evaluation.model_validate(old), use_case())) == {"leakage"}
