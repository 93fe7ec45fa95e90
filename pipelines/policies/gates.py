"""The promotion gates: an evaluation and a spec in, a verdict with every reason out. Pure.

What cannot be compared does not pass: a missing scorecard, a metric that is not a finite number, another holdout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipelines.records import Evaluation, Gate, GateReport, Scorecard
from pipelines.spec import GREATER_IS_BETTER, UseCase

#: 0.67 - 0.66 is a little less than 0.01 in binary floating point; that is nobody's intention.
_ROUNDING = 1e-12


def evaluate_gates(evaluation: Evaluation, spec: UseCase) -> GateReport:
    """Judges a challenger by every gate, and keeps every reason, numbers to four decimals.

    The gates: `comparable` (the metric of the spec, on this use case), `bound`, `champion`, `lightgbm`, `constant`,
    `quantization`, `leakage`.
    """
    gates = (
        _comparable(evaluation, spec),
        _bound(evaluation, spec),
        _champion(evaluation, spec),
        _against(
            evaluation,
            "lightgbm",
            _named(evaluation.others, "lightgbm"),
            -spec.gates.max_loss_to_lightgbm,
        ),
        _constant(evaluation),
        _quantization(evaluation, spec),
        _leakage(evaluation, spec),
    )
    return GateReport(passed=all(gate.passed for gate in gates), gates=gates)


def _comparable(evaluation: Evaluation, spec: UseCase) -> Gate:
    metric = spec.gates.metric
    wrong = []
    if evaluation.use_case != spec.name:
        wrong.append(f"the evaluation is of {evaluation.use_case}, the spec is of {spec.name}")
    if evaluation.metric != metric:
        wrong.append(f"the evaluation is by {evaluation.metric}, the spec asks for {metric}")
    if evaluation.greater_is_better != GREATER_IS_BETTER[metric]:
        wrong.append(f"the evaluation has the direction of {metric} wrong")
    if evaluation.challenger.rows != evaluation.rows or evaluation.rows < 1:
        wrong.append(f"the challenger was measured on {evaluation.challenger.rows} rows, not {evaluation.rows}")
    first, last = evaluation.holdout
    return Gate(
        name="comparable",
        passed=not wrong,
        reason="; ".join(wrong) or f"{metric} on {evaluation.rows} holdout rows, {first} to {last}",
    )


def _bound(evaluation: Evaluation, spec: UseCase) -> Gate:
    bound = spec.gates.bound
    value, why = _value(evaluation, evaluation.challenger)
    if value is None:
        return Gate(name="bound", passed=False, reason=why)
    side = "at least" if evaluation.greater_is_better else "at most"
    return Gate(
        name="bound",
        passed=_gain(evaluation, value, bound) >= -_ROUNDING,
        reason=f"{evaluation.metric} {value:.4f}, {side} {bound:.4f} is asked for",
    )


def _champion(evaluation: Evaluation, spec: UseCase) -> Gate:
    if evaluation.champion is None and evaluation.champion_version is None:
        return Gate(name="champion", passed=True, reason="there is no champion yet")
    found = () if evaluation.champion is None else (evaluation.champion,)
    name = "champion" if evaluation.champion_version is None else f"champion {evaluation.champion_version}"
    gate = _against(evaluation, name, found, spec.gates.margin_over_champion)
    return gate.model_copy(update={"name": "champion"})


def _constant(evaluation: Evaluation) -> Gate:
    gate = _against(evaluation, "constant", _named(evaluation.others, "constant"), 0.0, strict=True)
    return gate.model_copy(update={"name": "constant"})


def _quantization(evaluation: Evaluation, spec: UseCase) -> Gate:
    if spec.training.model == "lightgbm":
        return Gate(name="quantization", passed=True, reason="the trees are served as they are")
    if spec.training.compression == "none":
        return Gate(name="quantization", passed=True, reason="the student is served as fp32")
    full = _named(evaluation.others, "student_fp32")
    gate = _against(evaluation, "student_fp32", full, -spec.gates.max_loss_to_fp32)
    return gate.model_copy(update={"name": "quantization"})


def _leakage(evaluation: Evaluation, spec: UseCase) -> Gate:
    """No feature may say by itself nearly all that there is to say: such a one knows the outcome."""

    def gate(passed: bool, reason: str) -> Gate:
        return Gate(name="leakage", passed=passed, reason=reason)

    most, figures = spec.gates.max_single_feature, evaluation.single_features
    unknown = [name for name in spec.features.columns if not math.isfinite(figures.get(name, math.nan))]
    if unknown:
        return gate(False, f"nobody measured what these features say by themselves: {', '.join(unknown)}")
    ranked = sorted(spec.features.columns, key=lambda name: -figures[name])
    leaking = [f"{name} {figures[name]:.4f}" for name in ranked if figures[name] > most + _ROUNDING]
    measured = {"binary": "AUC", "multiclass": "accuracy gained", "regression": "R2 of ranks"}[spec.label.task]
    allowed = f"{measured} of a feature alone, at most {most:.4f} is believed"
    if leaking:
        return gate(False, f"{', '.join(leaking)}: {allowed}; does it hold the outcome?")
    return gate(True, f"{ranked[0]} {figures[ranked[0]]:.4f}: {allowed}")


def _against(
    evaluation: Evaluation, name: str, cards: Sequence[Scorecard], least_gain: float, *, strict: bool = False
) -> Gate:
    """Passes when the challenger is better than one other model by at least `least_gain` (negative: a loss)."""

    def refused(why: str) -> Gate:
        return Gate(name=name, passed=False, reason=why)

    if len(cards) != 1:
        return refused(f"{len(cards) or 'no'} scorecards of {name}, one is needed")
    mine, why = _value(evaluation, evaluation.challenger)
    if mine is None:
        return refused(why)
    other, why = _value(evaluation, cards[0])
    if other is None:
        return refused(why)
    if cards[0].rows != evaluation.challenger.rows:
        return refused(f"{name} was measured on {cards[0].rows} rows, the challenger on {evaluation.challenger.rows}")
    gain = _gain(evaluation, mine, other)
    if strict:
        passed, asked = gain > _ROUNDING, "better is asked for"
    else:
        passed = gain >= least_gain - _ROUNDING
        asked = (
            f"at least {least_gain:.4f} better is asked for"
            if least_gain > 0
            else f"at most {abs(least_gain):.4f} worse is accepted"
        )
    found = f"{abs(gain):.4f} {'better' if gain >= 0 else 'worse'}"
    return Gate(
        name=name,
        passed=passed,
        reason=f"{evaluation.metric} {mine:.4f} against {other:.4f} of {name}: {found}, {asked}",
    )


def _named(cards: Sequence[Scorecard], name: str) -> tuple[Scorecard, ...]:
    return tuple(card for card in cards if card.model == name)


def _value(evaluation: Evaluation, card: Scorecard) -> tuple[float | None, str]:
    value = card.metrics.get(evaluation.metric)
    if value is None:
        return None, f"{card.model} has no {evaluation.metric}"
    if not math.isfinite(value):
        return None, f"{evaluation.metric} of {card.model} is {value}"
    return value, ""


def _gain(evaluation: Evaluation, mine: float, other: float) -> float:
    return mine - other if evaluation.greater_is_better else other - mine
