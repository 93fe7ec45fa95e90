"""Is it good enough: against a bound, the champion and the baselines."""

from __future__ import annotations

from pipelines.policies.gates.rules import ROUNDING, against, gain_of, named, value_of
from pipelines.records import Evaluation, Gate
from pipelines.spec import GREATER_IS_BETTER, UseCase


def comparable(evaluation: Evaluation, spec: UseCase) -> Gate:
    """The evaluation is of this use case, by its metric, on one holdout."""
    metric = spec.gates.metric
    wrong = []
    if evaluation.use_case != spec.name:
        wrong.append(f"the evaluation is of {evaluation.use_case}, the spec is of {spec.name}")
    if evaluation.metric != metric:
        wrong.append(f"the evaluation is by {evaluation.metric}, the spec asks for {metric}")
    if evaluation.greater_is_better != GREATER_IS_BETTER[metric]:
        wrong.append(f"the evaluation has the direction of {metric} wrong")
    if evaluation.challenger.rows != evaluation.holdout.rows or evaluation.holdout.rows < 1:
        wrong.append(f"the challenger was measured on {evaluation.challenger.rows} rows, not {evaluation.holdout.rows}")
    first, last = evaluation.holdout.partitions
    return Gate(
        name="comparable",
        passed=not wrong,
        reason="; ".join(wrong) or f"{metric} on {evaluation.holdout.rows} holdout rows, {first} to {last}",
    )


def bound(evaluation: Evaluation, spec: UseCase) -> Gate:
    """At least, or at most, `gates.bound`."""
    bound = spec.gates.bound
    value, why = value_of(evaluation, evaluation.challenger)
    if value is None:
        return Gate(name="bound", passed=False, reason=why)
    side = "at least" if evaluation.greater_is_better else "at most"
    return Gate(
        name="bound",
        passed=gain_of(evaluation, value, bound) >= -ROUNDING,
        reason=f"{evaluation.metric} {value:.4f}, {side} {bound:.4f} is asked for",
    )


def champion(evaluation: Evaluation, spec: UseCase) -> Gate:
    """Better than the champion by the margin, on the same rows."""
    if evaluation.champion is None and evaluation.champion_version is None:
        return Gate(name="champion", passed=True, reason="there is no champion yet")
    found = () if evaluation.champion is None else (evaluation.champion,)
    name = "champion" if evaluation.champion_version is None else f"champion {evaluation.champion_version}"
    gate = against(evaluation, name, found, spec.gates.margin_over_champion)
    return gate.model_copy(update={"name": "champion"})


def lightgbm(evaluation: Evaluation, spec: UseCase) -> Gate:
    """At most so much worse than LightGBM on the same split."""
    return against(evaluation, "lightgbm", named(evaluation.others, "lightgbm"), -spec.gates.max_loss_to_lightgbm)


def constant(evaluation: Evaluation, spec: UseCase) -> Gate:  # noqa: ARG001 (a rule's signature)
    """Better than no model at all."""
    gate = against(evaluation, "constant", named(evaluation.others, "constant"), 0.0, strict=True)
    return gate.model_copy(update={"name": "constant"})
