"""What no usable model fails, whatever it scores."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

from pipelines.policies.gates.rules import ROUNDING, Rule, unmeasured, verdict
from pipelines.records import Evaluation, Gate, SanityChecks
from pipelines.spec import UseCase

_Judge = Callable[[Evaluation, UseCase, SanityChecks], Gate]
#: What must not change a score, and by how much it may. A client without our engine meets other roundings.
_INVARIANT = {"column_order": 0.0, "batch_size": 0.0, "graph": 1e-5}


def leakage(evaluation: Evaluation, spec: UseCase) -> Gate:
    """No feature may say by itself nearly all that there is to say: such a one knows the outcome."""

    def gate(passed: bool, reason: str) -> Gate:
        return Gate(name="leakage", passed=passed, reason=reason)

    most, figures = spec.gates.max_single_feature, evaluation.single_features
    unknown = [name for name in spec.features.columns if not math.isfinite(figures.get(name, math.nan))]
    if unknown:
        return gate(False, f"nobody measured what these features say by themselves: {', '.join(unknown)}")
    ranked = sorted(spec.features.columns, key=lambda name: -figures[name])
    leaking = [f"{name} {figures[name]:.4f}" for name in ranked if figures[name] > most + ROUNDING]
    measured = {"binary": "AUC", "multiclass": "accuracy gained", "regression": "R2 of ranks"}[spec.label.task]
    allowed = f"{measured} of a feature alone, at most {most:.4f} is believed"
    if leaking:
        return gate(False, f"{', '.join(leaking)}: {allowed}; does it hold the outcome?")
    return gate(True, f"{ranked[0]} {figures[ranked[0]]:.4f}: {allowed}")


def _measured(name: str) -> Callable[[_Judge], Rule]:
    """A rule that judges the sanity checks, and refuses where there are none."""

    def of(judge: _Judge) -> Rule:
        @wraps(judge)
        def rule(evaluation: Evaluation, spec: UseCase) -> Gate:
            if evaluation.sanity is None:
                return unmeasured(evaluation, name, "sanity")
            return judge(evaluation, spec, evaluation.sanity)

        return rule

    return of


@_measured("collapse")
def collapse(evaluation: Evaluation, spec: UseCase, found: SanityChecks) -> Gate:
    """About as good on the holdout, which is newer, as on rows that the model was trained on.

    Much worse: it knows the past by heart, or a feature knows the past's outcomes. Much better: the labels that it was
    trained on are not what the newer ones are.
    """
    most, fallen = spec.gates.sanity.max_collapse, found.collapse
    if found.seen_metric is None:
        return verdict("collapse", False, "not measured: the rows that the model was trained on are gone; train again")
    seen = f"{evaluation.metric} {found.seen_metric:.4f} on training rows"
    if fallen is None or not math.isfinite(fallen):
        return verdict("collapse", False, f"{seen}: it cannot be compared, since it is not defined on both")
    unit = "" if evaluation.greater_is_better else " of what a constant loses"
    side = f"{abs(fallen):.4f}{unit} {'worse' if fallen > 0 else 'better'} on the holdout"
    passed = abs(fallen) <= most + ROUNDING
    doubt = "" if passed or fallen > 0 else ": are the training labels right?"
    return verdict("collapse", passed, f"{seen}, {side}, at most {most:.4f} either way is believed{doubt}")


@_measured("distribution")
def distribution(evaluation: Evaluation, spec: UseCase, found: SanityChecks) -> Gate:
    """Scores that differ, and that are scores."""
    asked, wrong = spec.gates.sanity, []
    if found.outside:
        kind = "no finite numbers" if spec.label.task == "regression" else "no probabilities"
        wrong.append(f"{found.outside} are {kind}")
    if found.distinct < asked.min_distinct:
        wrong.append(f"{found.distinct} differ, at least {asked.min_distinct} must")
    if not found.same <= asked.max_same + ROUNDING:
        wrong.append(f"{found.same:.4f} of the rows have one and the same, at most {asked.max_same:.4f} may")
    told = f"{found.distinct} distinct, the most frequent on {found.same:.4f} of the rows"
    return verdict("distribution", not wrong, f"of {evaluation.holdout.rows} scores {'; '.join(wrong) or told}")


@_measured("sensitivity")
def sensitivity(evaluation: Evaluation, spec: UseCase, found: SanityChecks) -> Gate:  # noqa: ARG001
    """The score listens to the features, and not to one alone."""

    def gate(passed: bool, reason: str) -> Gate:
        return verdict("sensitivity", passed, reason)

    names, moved = spec.features.columns, found.sensitivity
    unknown = [name for name in names if not math.isfinite(moved.get(name, math.nan))]
    if unknown:
        return gate(False, f"nobody measured what these features do to the score: {', '.join(unknown)}")
    total = sum(moved[name] for name in names)
    if total <= 0:
        return gate(False, "no feature changes the score")
    most = spec.gates.sanity.max_feature_share
    first = max(names, key=lambda name: moved[name])
    share = moved[first] / total
    deaf = [name for name in names if moved[name] == 0]
    silent = f"; without effect: {', '.join(deaf)}" if deaf else ""
    if len(names) == 1:
        return gate(True, f"{first} is the only feature")
    told = f"{first} has {share:.4f} of all effect on the score, at most {most:.4f} is believed"
    return gate(share <= most + ROUNDING, told + silent)


@_measured("golden")
def golden(evaluation: Evaluation, spec: UseCase, found: SanityChecks) -> Gate:  # noqa: ARG001
    """Every pair of rows in `gates.golden` moves the score as it says."""
    pairs = spec.gates.golden
    if not pairs:
        return verdict("golden", True, "no golden rows are declared")
    outcomes = {outcome.name: outcome for outcome in found.golden}
    wrong = []
    for pair in pairs:
        outcome = outcomes.get(pair.name)
        if outcome is None:
            wrong.append(f"{pair.name}: not measured")
        elif not outcome.passed:
            least = f" by {'at most' if pair.score == 'stays' else 'at least'} {pair.by:.4f}" if pair.by else ""
            moved = f"{outcome.before:.4f} became {outcome.after:.4f}"
            wrong.append(f"{pair.name}: {moved}, but the score {pair.score}{least}")
    return verdict("golden", not wrong, "; ".join(wrong) or f"{len(pairs)} golden pairs move as they must")


@_measured("invariance")
def invariance(evaluation: Evaluation, spec: UseCase, found: SanityChecks) -> Gate:  # noqa: ARG001
    """A row's score is the same whatever the columns' order is, and whatever rows are beside it."""
    wrong = []
    for what, most in _INVARIANT.items():
        difference = found.invariance.get(what)
        if difference is None:
            wrong.append(f"{what}: not measured")
        elif not difference <= most:
            wrong.append(f"{what}: {difference:.3g}, at most {most:.3g} is accepted")
    shown = ", ".join(f"{what} {difference:.3g}" for what, difference in found.invariance.items())
    return verdict("invariance", not wrong, f"greatest difference of a score: {'; '.join(wrong) or shown}")
