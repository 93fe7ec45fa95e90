"""The gates on compression, sanity and data, each by the measurement that it judges."""

from __future__ import annotations

import math
from typing import Any

import pytest

from pipelines.policies.gates import evaluate_gates
from pipelines.records import Evaluation, GoldenOutcome, SliceGain
from tests.unit.policies.measured import DATA, FP32, SANITY
from tests.unit.policies.test_gates import card, evaluation, reason, refused, use_case

RISES = {"name": "more", "changed": {"x": 1.0}, "score": "rises", "by": 0.01}


def part(gain: float, other: float = 0.7, rows: int = 400) -> SliceGain:
    return SliceGain(slice="origin = EWR", rows=rows, mine=other + gain, other=other, gain=gain)


def sane(**changes: Any) -> Evaluation:
    return evaluation().model_copy(update={"sanity": SANITY.model_copy(update=changes)})


def compressed(**changes: Any) -> Evaluation:
    return evaluation().model_copy(update={"fp32": FP32.model_copy(update=changes)})


@pytest.mark.parametrize(
    ("found", "failing", "words"),
    [
        (
            {"slices": (part(-0.001), part(-0.03))},
            "compression_slices",
            "0.6700 against 0.7000 of fp32, a loss of 0.03",
        ),
        ({"slices": (part(0.1), part(math.nan))}, "compression_slices", "nan"),
        ({"size_ratio": 1.3, "more_bytes": 40_000}, "size", "1.30 of fp32's bytes (+40000), at most 1.00"),
        ({"latency_ratios": {1: 1.0, 4096: 2.1}}, "latency", "2.10 for 4096; at most 2.00"),
        ({"latency_ratios": {1: math.nan}}, "latency", "nan"),
        ({"latency_ratios": {}}, "latency", "at most"),
        ({"speed_ratio": 0.4}, "speed", "0.40 times fp32's rows a second"),
        ({"speed_ratio": math.nan}, "speed", "nan"),
    ],
)
def test_compression_that_costs_too_much_is_refused(found: dict[str, Any], failing: str, words: str) -> None:
    report = evaluate_gates(compressed(**found), use_case())
    assert refused(report) == {failing}
    assert words in reason(report, failing)


def test_some_kilobytes_more_of_a_tiny_network_are_accepted() -> None:
    assert evaluate_gates(compressed(size_ratio=1.6, more_bytes=3_000), use_case()).passed


def test_what_compression_may_cost_is_the_specs_to_say() -> None:
    found = compressed(
        slices=(part(-0.03),), size_ratio=1.3, more_bytes=40_000, latency_ratios={1: 2.5}, speed_ratio=0.3
    )
    limits = {"max_slice_loss": 0.03, "max_size_ratio": 1.3, "max_latency_ratio": 2.5, "min_speed_ratio": 0.3}
    assert evaluate_gates(found, use_case(compression=limits)).passed
    assert refused(evaluate_gates(found, use_case())) == {"compression_slices", "size", "latency", "speed"}


def test_an_error_in_a_unit_is_judged_on_a_slice_as_a_share_of_fp32s() -> None:
    spec = use_case("regression", "rmse", bound=60.0, max_loss_to_lightgbm=1.5, max_loss_to_fp32=0.5)
    base = evaluation(42.0, lightgbm=42.0, constant=50.0, fp32=42.0, metric="rmse", greater=False)
    for loss, passes in ((0.5, True), (1.0, False)):
        found = FP32.model_copy(update={"slices": (part(-loss, other=42.0),)})
        report = evaluate_gates(base.model_copy(update={"fp32": found}), spec)
        assert ("compression_slices" not in refused(report)) == passes


def test_the_served_student_is_compared_with_fp32_on_the_same_holdout_whichever_the_challenger_met() -> None:
    """The challenger's own card may be of newer rows, on which nobody scores better."""
    assert refused(evaluate_gates(evaluation(0.66, lightgbm=0.66, fp32=0.681, served=0.68), use_case())) == set()
    assert refused(evaluate_gates(evaluation(0.69, fp32=0.681, served=0.67), use_case())) == {"quantization"}


@pytest.mark.parametrize("served", ["lightgbm_onnx", "student_fp32"])
def test_what_is_served_as_it_is_passes_and_says_so(served: str) -> None:
    whole = evaluation()
    others = {each.model: each for each in whole.others} | {served: card(served, 0.68)}
    found = whole.model_copy(update={"served": served, "fp32": None, "others": tuple(others.values())})
    report = evaluate_gates(found, use_case())
    assert report.passed
    for name in ("quantization", "compression_slices", "size", "latency", "speed"):
        assert "served as" in reason(report, name)


@pytest.mark.parametrize(
    ("field", "gates"),
    [
        ("sanity", {"collapse", "distribution", "sensitivity", "golden", "invariance"}),
        ("fp32", {"compression_slices", "size", "latency", "speed"}),
        ("data", {"data"}),
    ],
)
def test_what_was_not_measured_is_refused_and_says_why(field: str, gates: set[str]) -> None:
    bare = evaluation().model_copy(update={field: None, "errors": {field: "OSError: no such file"}})
    report = evaluate_gates(bare, use_case())
    assert refused(report) == gates
    assert all(reason(report, name) == "not measured: OSError: no such file" for name in gates)


@pytest.mark.parametrize(
    ("found", "failing", "words"),
    [
        ({"distinct": 1, "same": 1.0}, "distribution", "1 differ, at least 10 must; 1.0000 of the rows have one"),
        ({"same": 0.95}, "distribution", "0.9500 of the rows have one and the same, at most 0.9000 may"),
        ({"same": math.nan}, "distribution", "nan"),
        ({"outside": 3}, "distribution", "3 are no probabilities"),
        ({"sensitivity": {"x": 0.0}}, "sensitivity", "no feature changes the score"),
        ({"sensitivity": {"x": math.nan}}, "sensitivity", "nobody measured what these features do to the score: x"),
        ({"sensitivity": {}}, "sensitivity", "nobody measured"),
        ({"collapse": 0.25}, "collapse", "auc 0.7000 on training rows, 0.2500 worse on the holdout, at most 0.2000"),
        (
            {"collapse": -0.25},
            "collapse",
            "0.2500 better on the holdout, at most 0.2000 either way is believed: are the",
        ),
        ({"collapse": None}, "collapse", "cannot be compared"),
        ({"collapse": math.nan}, "collapse", "cannot be compared"),
        ({"seen_metric": None, "collapse": None}, "collapse", "the rows that the model was trained on are gone"),
        ({"invariance": {"column_order": 1e-9, "batch_size": 0.0, "graph": 0.0}}, "invariance", "column_order: 1e-09"),
        ({"invariance": {"column_order": 0.0, "batch_size": math.inf, "graph": 0.0}}, "invariance", "batch_size: inf"),
        ({"invariance": {"column_order": 0.0, "batch_size": 0.0, "graph": 1e-4}}, "invariance", "graph: 0.0001"),
        ({"invariance": {"column_order": 0.0, "graph": math.nan}}, "invariance", "batch_size: not measured"),
    ],
)
def test_a_model_that_is_not_sane_is_refused_by_one_gate(found: dict[str, Any], failing: str, words: str) -> None:
    report = evaluate_gates(sane(**found), use_case())
    assert refused(report) == {failing}
    assert words in reason(report, failing)


def test_one_feature_may_have_nearly_all_effect_but_not_all_unless_it_is_the_only_one() -> None:
    spec = use_case()
    two = spec.model_copy(update={"features": spec.features.model_copy(update={"numeric": ("x", "z")})})
    singles = {"single_features": {"x": 0.6, "z": 0.5}}
    for share, passes in ((0.98, True), (1.0, False)):
        found = sane(sensitivity={"x": share, "z": 1 - share}).model_copy(update=singles)
        assert ("sensitivity" not in refused(evaluate_gates(found, two))) == passes
    assert "z" in reason(evaluate_gates(found, two), "sensitivity").split("without effect:")[1]
    assert "only feature" in reason(evaluate_gates(sane(), spec), "sensitivity")


def test_a_golden_pair_that_is_violated_or_that_nobody_measured_is_refused_by_name() -> None:
    spec = use_case(golden=[RISES])
    outcomes = {"before": 0.2, "after": 0.19}
    for golden, words in (
        ((GoldenOutcome(name="more", passed=False, **outcomes),), "more: 0.2000 became 0.1900, but the score rises by"),
        ((), "more: not measured"),
        ((GoldenOutcome(name="less", passed=True, **outcomes),), "more: not measured"),
    ):
        report = evaluate_gates(sane(golden=golden), spec)
        assert refused(report) == {"golden"}
        assert words in reason(report, "golden")
    kept = GoldenOutcome(name="more", before=0.2, after=0.3, passed=True)
    assert evaluate_gates(sane(golden=(kept,)), spec).passed


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"unaudited": ("rows/2024-01-02",)}, "1 without a passing audit of these bytes: rows/2024-01-02"),
        ({"quarantined": tuple(f"rows/{i}" for i in range(7))}, "7 in quarantine: rows/0, rows/1, rows/2, rows/3, "),
        ({"partitions": 0}, "names no partition"),
    ],
)
def test_data_that_did_not_pass_its_audit_is_refused_by_partition(found: dict[str, Any], words: str) -> None:
    report = evaluate_gates(evaluation().model_copy(update={"data": DATA.model_copy(update=found)}), use_case())
    assert refused(report) == {"data"}
    assert words in reason(report, "data")
