"""What every gate is made of: a verdict with its reason, and a comparison of two scorecards."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pipelines.records import Evaluation, Gate, Scorecard
from pipelines.spec import UseCase

#: A pure rule. What it raises counts as a refusal.
Rule = Callable[[Evaluation, UseCase], Gate]

#: 0.67 - 0.66 is a little less than 0.01 in binary floating point; that is nobody's intention.
ROUNDING = 1e-12


def verdict(name: str, passed: bool, reason: str) -> Gate:
    """One rule's verdict."""
    return Gate(name=name, passed=passed, reason=reason)


def unmeasured(evaluation: Evaluation, name: str, part: str) -> Gate:
    """The refusal of a gate whose measurement is not there."""
    return verdict(name, False, f"not measured: {evaluation.errors.get(part, 'nobody looked')}")


def against(
    evaluation: Evaluation, name: str, cards: Sequence[Scorecard], least_gain: float, *, strict: bool = False
) -> Gate:
    """Passes when the challenger is better than one other model by at least `least_gain` (negative: a loss)."""

    def refused(why: str) -> Gate:
        return Gate(name=name, passed=False, reason=why)

    if len(cards) != 1:
        return refused(f"{len(cards) or 'no'} scorecards of {name}, one is needed")
    mine, why = value_of(evaluation, evaluation.challenger)
    if mine is None:
        return refused(why)
    other, why = value_of(evaluation, cards[0])
    if other is None:
        return refused(why)
    if cards[0].rows != evaluation.challenger.rows:
        return refused(f"{name} was measured on {cards[0].rows} rows, the challenger on {evaluation.challenger.rows}")
    gain = gain_of(evaluation, mine, other)
    if strict:
        passed, asked = gain > ROUNDING, "better is asked for"
    else:
        passed = gain >= least_gain - ROUNDING
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


def named(cards: Sequence[Scorecard], name: str) -> tuple[Scorecard, ...]:
    """The scorecards of one model."""
    return tuple(card for card in cards if card.model == name)


def value_of(evaluation: Evaluation, card: Scorecard) -> tuple[float | None, str]:
    """The judged metric of a scorecard; None and why where it cannot be judged."""
    value = card.metrics.get(evaluation.metric)
    if value is None:
        return None, f"{card.model} has no {evaluation.metric}"
    if not math.isfinite(value):
        return None, f"{evaluation.metric} of {card.model} is {value}"
    return value, ""


def gain_of(evaluation: Evaluation, mine: float, other: float) -> float:
    """How much better the first is; negative: worse."""
    return mine - other if evaluation.greater_is_better else other - mine
