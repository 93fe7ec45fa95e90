"""What compression may cost."""

from __future__ import annotations

from pipelines.policies.gates.rules import against, named
from pipelines.records import Evaluation, Gate
from pipelines.spec import UseCase


def quantization(evaluation: Evaluation, spec: UseCase) -> Gate:
    """At most so much worse than its own fp32."""
    if spec.training.model == "lightgbm":
        return Gate(name="quantization", passed=True, reason="the trees are served as they are")
    if spec.training.compression == "none":
        return Gate(name="quantization", passed=True, reason="the student is served as fp32")
    full = named(evaluation.others, "student_fp32")
    gate = against(evaluation, "student_fp32", full, -spec.gates.max_loss_to_fp32)
    return gate.model_copy(update={"name": "quantization"})
