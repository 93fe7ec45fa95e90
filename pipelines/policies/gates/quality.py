"""Is it good enough: against a bound, the champion and the baselines, overall, by slice and as a probability."""

from __future__ import annotations

import math

from pipelines import partitions
from pipelines.errors import SpecError
from pipelines.policies.gates.rules import ROUNDING, against, asked, gain_of, named, told, unmeasured, value_of, verdict
from pipelines.records import Comparison, Evaluation, Gate
from pipelines.spec import CLASS_ROWS, GREATER_IS_BETTER, UseCase

#: A comparison's gain and the difference of the scorecards are the same sums in another order.
_SAME = 1e-6


def comparable(evaluation: Evaluation, spec: UseCase) -> Gate:
    """The evaluation is of this use case, by its metric, on one pinned holdout that neither model learned from."""
    metric, holdout = spec.gates.metric, evaluation.holdout
    wrong = []
    if evaluation.use_case != spec.name:
        wrong.append(f"the evaluation is of {evaluation.use_case}, the spec is of {spec.name}")
    if evaluation.metric != metric:
        wrong.append(f"the evaluation is by {evaluation.metric}, the spec asks for {metric}")
    if evaluation.greater_is_better != GREATER_IS_BETTER[metric]:
        wrong.append(f"the evaluation has the direction of {metric} wrong")
    measured = {"challenger": evaluation.challenger, "champion": evaluation.champion}
    for who, card in measured.items():
        if card is not None and (card.rows != holdout.rows or holdout.rows < 1):
            wrong.append(f"the {who} was measured on {card.rows} rows, not {holdout.rows}")
    if not holdout.snapshots or not holdout.digest:
        wrong.append("the holdout is not pinned by snapshots and a digest")
    wrong += _timing(evaluation, spec)
    first, last = holdout.partitions
    learned = " and ".join(f"the {who} learned until {key}" for who, key in evaluation.learned.items())
    fine = f"{metric} on {holdout.rows} holdout rows, {first} to {last}; {learned}"
    return verdict("comparable", not wrong, "; ".join(wrong) or fine)


def _timing(evaluation: Evaluation, spec: UseCase) -> list[str]:
    """What is wrong with the time of the holdout: what was learned from, and labels that had not matured."""
    holdout = evaluation.holdout
    first, last = holdout.partitions
    keys = {"holdout": first, "holdout's end": last, "as_of": holdout.as_of}
    keys |= {f"{who}'s data": key for who, key in evaluation.learned.items()}
    for what, key in keys.items():
        try:
            partitions.start(key, spec.granularity)
        except SpecError:
            return [f"{what}: {key!r} is no key of a {spec.granularity}"]
    wrong = [f"the holdout runs backwards, {first} to {last}"] if last < first else []
    for who in ("challenger", *(("champion",) if _incumbent(evaluation) else ())):
        newest = evaluation.learned.get(who)
        if newest is None:
            wrong.append(f"nobody knows what the {who} learned from")
        elif newest >= first:
            wrong.append(f"the {who} learned from data of {newest}, the holdout begins at {first}")
    wait = max(spec.label.maturity, spec.tables[spec.label.table].lag)
    mature = partitions.shift(holdout.as_of, -wait, spec.granularity)
    if last > mature:
        wrong.append(f"labels until {mature} had matured at {holdout.as_of}, the holdout ends at {last}")
    return wrong


def rows(evaluation: Evaluation, spec: UseCase) -> Gate:
    """Enough rows: in all, of each class, and to see the gain that must not go unseen."""
    gates, held = spec.gates, evaluation.holdout.rows
    few, fine = [], [f"{held} holdout rows"]
    if held < gates.min_rows:
        few.append(f"{held} holdout rows, at least {gates.min_rows} are asked for")
    if spec.label.task != "regression":
        rarest = evaluation.rarest_class
        if rarest is None:
            return unmeasured(evaluation, "rows", "classes")
        fine.append(f"{rarest} of the rarest class")
        if rarest < CLASS_ROWS:
            few.append(f"{rarest} rows of the rarest class, at least {CLASS_ROWS} are asked for")
    if gates.detectable is not None and _incumbent(evaluation):
        needed = evaluation.rows_needed
        if needed is None:
            return unmeasured(evaluation, "rows", "quality")
        seen = f"a gain of {gates.detectable:.4f} over the margin is seen with {gates.power:.0%} on {needed} rows"
        fine.append(seen)
        if held < needed:
            few.append(f"{seen}, here are {held}")
    return verdict("rows", not few, "; ".join(few or fine))


def bound(evaluation: Evaluation, spec: UseCase) -> Gate:
    """At least, or at most, `gates.bound`."""
    bound = spec.gates.bound
    value, why = value_of(evaluation, evaluation.challenger)
    if value is None:
        return verdict("bound", False, why)
    side = "at least" if evaluation.greater_is_better else "at most"
    reason = f"{evaluation.metric} {value:.4f}, {side} {bound:.4f} is asked for"
    return verdict("bound", gain_of(evaluation, value, bound) >= -ROUNDING, reason)


def champion(evaluation: Evaluation, spec: UseCase) -> Gate:
    """Better than the champion by the margin, surely: the lower end of the paired gain reaches it."""
    gates = spec.gates
    if not _incumbent(evaluation):
        return verdict("champion", True, "there is no champion yet")
    name = "champion" if evaluation.champion_version is None else f"champion {evaluation.champion_version}"
    if evaluation.champion is None:
        return verdict("champion", False, f"no scorecards of {name}, one is needed")
    values = []
    for card in (evaluation.challenger, evaluation.champion):
        value, why = value_of(evaluation, card)
        if value is None:
            return verdict("champion", False, why)
        values.append(value)
    comparison = _with_champion(evaluation)
    if comparison is None:
        return unmeasured(evaluation, "champion", "quality")
    gain = comparison.gain
    if not all(map(math.isfinite, (gain.value, gain.low, gain.high))):
        return verdict("champion", False, f"the gain is {gain.value}, from {gain.low} to {gain.high}")
    if (gain.level, gain.resamples) != (gates.confidence, gates.resamples):
        reason = (
            f"the interval has level {gain.level:g} and {gain.resamples} resamples, "
            f"{gates.confidence:g} and {gates.resamples} are asked for"
        )
        return verdict("champion", False, reason)
    difference = gain_of(evaluation, *values)
    if abs(difference - gain.value) > _SAME * max(1.0, *map(abs, values)):
        reason = f"the comparison says {told(gain.value)}, the scorecards say {told(difference)}"
        return verdict("champion", False, reason)
    reason = (
        f"{evaluation.metric} {values[0]:.4f} against {values[1]:.4f} of {name}: {told(gain.value)}, with "
        f"{gain.level:.0%} no less than {told(gain.low)} (interval {gain.low:+.4f} to {gain.high:+.4f}), "
        f"{asked(gates.margin_over_champion)}"
    )
    return verdict("champion", gain.low >= gates.margin_over_champion - ROUNDING, reason)


def slices(evaluation: Evaluation, spec: UseCase) -> Gate:
    """On no declared slice, and not on the worst that was found, much worse than the champion."""
    if not _incumbent(evaluation):
        return verdict("slices", True, "there is no champion yet")
    comparison = _with_champion(evaluation)
    if comparison is None:
        return unmeasured(evaluation, "slices", "quality")
    looked = [*comparison.slices, *((comparison.worst,) if comparison.worst else ())]
    if not looked:
        return verdict("slices", True, f"no slice has {spec.gates.slice_rows} rows")
    accepted = asked(-spec.gates.max_slice_loss)
    if broken := [each.slice for each in looked if not math.isfinite(each.gain)]:
        return verdict("slices", False, f"no number for {', '.join(broken)}")
    ranked = sorted(looked, key=lambda each: each.gain)
    fell = [each for each in ranked if each.gain < -spec.gates.max_slice_loss - ROUNDING]
    said = "; ".join(f"{each.slice}: {told(each.gain)} on {each.rows} rows" for each in fell[:5] or ranked[:1])
    more = f"; {len(fell) - 5} more" if len(fell) > 5 else ""
    count = f"{len(comparison.slices)} declared slices and {'the worst found' if comparison.worst else 'none found'}"
    return verdict("slices", not fell, f"{said}{more}; {accepted}, of {count}")


def calibration(evaluation: Evaluation, spec: UseCase) -> Gate:
    """Its probabilities are about what happens."""
    if spec.label.task == "regression":
        return verdict("calibration", True, "a regression gives no probabilities")
    error, most = evaluation.challenger.calibration_error, spec.gates.max_calibration_error
    if error is None or not math.isfinite(error):
        return verdict("calibration", False, f"the expected calibration error is {error}")
    reason = f"expected calibration error {error:.4f}, at most {most:.4f} is asked for"
    return verdict("calibration", error <= most + ROUNDING, reason)


def lightgbm(evaluation: Evaluation, spec: UseCase) -> Gate:
    """At most so much worse than LightGBM on the same split."""
    return against(evaluation, "lightgbm", named(evaluation.others, "lightgbm"), -spec.gates.max_loss_to_lightgbm)


def constant(evaluation: Evaluation, spec: UseCase) -> Gate:  # noqa: ARG001 (a rule's signature)
    """Better than no model at all."""
    return against(evaluation, "constant", named(evaluation.others, "constant"), 0.0, strict=True)


def older(evaluation: Evaluation, spec: UseCase) -> Gate:
    """It knows data as new as what the champion knows."""
    if not _incumbent(evaluation):
        return verdict("older", True, "there is no champion yet")
    mine, theirs = (evaluation.learned.get(who) for who in ("challenger", "champion"))
    if mine is None or theirs is None:
        return verdict("older", False, "nobody knows what challenger and champion learned from")
    for key in (mine, theirs):
        partitions.start(key, spec.granularity)
    reason = f"the challenger learned until {mine}, the champion until {theirs}"
    if mine < theirs:
        return verdict("older", spec.gates.allow_older, f"{reason}; gates.allow_older is {spec.gates.allow_older}")
    return verdict("older", True, reason)


def _incumbent(evaluation: Evaluation) -> bool:
    return evaluation.champion is not None or evaluation.champion_version is not None


def _with_champion(evaluation: Evaluation) -> Comparison | None:
    """The one comparison with the champion."""
    found = [each for each in evaluation.comparisons if each.against == "champion"]
    return found[0] if len(found) == 1 else None
