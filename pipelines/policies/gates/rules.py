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
    """Passes when what is served is better than one other of `others` by at least `least_gain` (negative: a loss).

    `others` met on the holdout of the challenger's own training. A version that is promoted later meets the champion on
    newer rows, of which these cards say nothing: so the served model's own card is compared, not `challenger`.
    """
    mine = named(evaluation.others, evaluation.served)
    for who, found in ((evaluation.served or "what is served", mine), (name, cards)):
        if len(found) != 1:
            return verdict(name, False, f"{len(found) or 'no'} scorecards of {who}, one is needed")
    value, why = value_of(evaluation, mine[0])
    if value is None:
        return verdict(name, False, why)
    other, why = value_of(evaluation, cards[0])
    if other is None:
        return verdict(name, False, why)
    if cards[0].rows != mine[0].rows:
        why = f"{name} was measured on {cards[0].rows} rows, {mine[0].model} on {mine[0].rows}"
        return verdict(name, False, why)
    gain = gain_of(evaluation, value, other)
    passed = gain > ROUNDING if strict else gain >= least_gain - ROUNDING
    wanted = "better is asked for" if strict else asked(least_gain)
    reason = f"{evaluation.metric} {value:.4f} against {other:.4f} of {name}: {told(gain)}, {wanted}"
    return verdict(name, passed, reason)


def asked(least_gain: float) -> str:
    """What a least gain asks for, in words."""
    return (
        f"at least {least_gain:.4f} better is asked for"
        if least_gain > 0
        else f"at most {abs(least_gain):.4f} worse is accepted"
    )


def told(gain: float) -> str:
    """A gain in words."""
    return f"{abs(gain):.4f} {'better' if gain >= 0 else 'worse'}"


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
