"""The promotion gates: an evaluation and a spec in, a verdict with every reason out. Pure.

What cannot be compared does not pass: a missing scorecard, a metric that is not a finite number, another holdout. A
gate that fails to judge has refused.
"""

from __future__ import annotations

from pipelines.policies.gates import compression, data, fairness, quality, sanity
from pipelines.policies.gates.rules import Rule, verdict
from pipelines.records import Evaluation, Gate, GateReport
from pipelines.spec import UseCase

#: Every gate by name, in the order in which people read them.
RULES: dict[str, Rule] = {
    "comparable": quality.comparable,
    "rows": quality.rows,
    "older": quality.older,
    "bound": quality.bound,
    "champion": quality.champion,
    "slices": quality.slices,
    "calibration": quality.calibration,
    "lightgbm": quality.lightgbm,
    "constant": quality.constant,
    "quantization": compression.quantization,
    "compression_slices": compression.slices,
    "size": compression.size,
    "latency": compression.latency,
    "speed": compression.speed,
    "leakage": sanity.leakage,
    "collapse": sanity.collapse,
    "distribution": sanity.distribution,
    "sensitivity": sanity.sensitivity,
    "golden": sanity.golden,
    "invariance": sanity.invariance,
    "data": data.data,
    "fairness": fairness.fairness,
}


def evaluate_gates(evaluation: Evaluation, spec: UseCase) -> GateReport:
    """Judges a challenger by every gate, and keeps every reason, numbers to four decimals."""
    gates = tuple(_judge(name, rule, evaluation, spec) for name, rule in RULES.items())
    return GateReport(passed=all(gate.passed for gate in gates), gates=gates)


def _judge(name: str, rule: Rule, evaluation: Evaluation, spec: UseCase) -> Gate:
    """One gate's verdict. An error inside it is a refusal: a champion is never made by a rule that broke."""
    try:
        return rule(evaluation, spec)
    except Exception as error:
        return verdict(name, False, f"the gate itself failed: {type(error).__name__}: {error}")
