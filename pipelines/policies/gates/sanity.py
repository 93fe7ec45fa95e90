"""What no usable model fails, whatever it scores."""

from __future__ import annotations

import math

from pipelines.policies.gates.rules import ROUNDING
from pipelines.records import Evaluation, Gate
from pipelines.spec import UseCase


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
