"""What compression may cost: the served student against its own fp32."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps

from pipelines.policies.gates.rules import ROUNDING, Rule, against, named, unmeasured, verdict
from pipelines.records import Evaluation, Gate, ServedAgainstFp32, SliceGain
from pipelines.spec import UseCase

_Judge = Callable[[Evaluation, UseCase, ServedAgainstFp32], Gate]
#: The nodes that turn floats into 8 bits and back weigh more than a tiny network's weights: a kilobyte or two a layer.
_NODES_BYTES = 16 * 1024


def quantization(evaluation: Evaluation, spec: UseCase) -> Gate:
    """At most so much worse than its own fp32, both on the holdout of the challenger's own training."""
    if (why := _as_it_is(evaluation, spec)) is not None:
        return verdict("quantization", True, why)
    full = named(evaluation.others, "student_fp32")
    gate = against(evaluation, "student_fp32", full, -spec.gates.max_loss_to_fp32)
    return gate.model_copy(update={"name": "quantization"})


def _as_it_is(evaluation: Evaluation, spec: UseCase) -> str | None:
    """Why there is nothing to compare with; None where there is."""
    served = evaluation.served
    if served == "lightgbm_onnx" or (not served and spec.training.model == "lightgbm"):
        return "the trees are served as they are"
    if served == "student_fp32" or (not served and spec.training.compression == "none"):
        return "the student is served as fp32"
    return None


def _measured(name: str) -> Callable[[_Judge], Rule]:
    """A rule that judges what was measured in turn; nothing compressed passes, nothing measured does not."""

    def of(judge: _Judge) -> Rule:
        @wraps(judge)
        def rule(evaluation: Evaluation, spec: UseCase) -> Gate:
            if (why := _as_it_is(evaluation, spec)) is not None:
                return verdict(name, True, why)
            if evaluation.fp32 is None:
                return unmeasured(evaluation, name, "fp32")
            return judge(evaluation, spec, evaluation.fp32)

        return rule

    return of


@_measured("compression_slices")
def slices(evaluation: Evaluation, spec: UseCase, found: ServedAgainstFp32) -> Gate:
    """No slice loses more than so much of the metric (rmse and mae: as a share of fp32's)."""
    most = spec.gates.compression.max_slice_loss
    asked = f"{evaluation.metric}, at most {most:.4f} is accepted"
    if not found.slices:
        return verdict("compression_slices", True, f"no slice of {spec.gates.slice_rows} rows or more is declared")
    worst = max(found.slices, key=lambda part: _ranked(evaluation, part))
    loss = loss_of(evaluation, worst)
    told = (
        f"{worst.slice} ({worst.rows} rows): {worst.mine:.4f} against {worst.other:.4f} of fp32, a loss of {loss:.4f}"
    )
    return verdict("compression_slices", loss <= most + ROUNDING, f"{told}: {asked}")


def loss_of(evaluation: Evaluation, part: SliceGain) -> float:
    """How much the first of two models loses on a slice; negative where it gains."""
    if evaluation.metric in ("rmse", "mae"):
        return -part.gain / part.other if part.other > 0 else math.copysign(math.inf, -part.gain) if part.gain else 0.0
    return -part.gain


def _ranked(evaluation: Evaluation, part: SliceGain) -> float:
    """What is no number is the worst."""
    loss = loss_of(evaluation, part)
    return math.inf if math.isnan(loss) else loss


@_measured("size")
def size(evaluation: Evaluation, spec: UseCase, found: ServedAgainstFp32) -> Gate:  # noqa: ARG001
    """The served file is at most so large; some kilobytes more are not worth a word."""
    most = spec.gates.compression.max_size_ratio
    told = f"{found.size_ratio:.2f} of fp32's bytes ({found.more_bytes:+d}), at most {most:.2f} is accepted"
    if found.size_ratio > most and found.more_bytes <= _NODES_BYTES:
        return verdict("size", True, f"{told}, or {_NODES_BYTES} bytes more")
    return verdict("size", found.size_ratio <= most + ROUNDING, told)


@_measured("latency")
def latency(evaluation: Evaluation, spec: UseCase, found: ServedAgainstFp32) -> Gate:  # noqa: ARG001
    """No batch takes more than so many times as long."""
    most = spec.gates.compression.max_latency_ratio
    told = ", ".join(f"{ratio:.2f} for {rows}" for rows, ratio in sorted(found.latency_ratios.items()))
    fine = bool(found.latency_ratios) and all(ratio <= most + ROUNDING for ratio in found.latency_ratios.values())
    return verdict("latency", fine, f"p99 as a share of fp32's, by rows of a batch: {told}; at most {most:.2f}")


@_measured("speed")
def speed(evaluation: Evaluation, spec: UseCase, found: ServedAgainstFp32) -> Gate:  # noqa: ARG001
    """Rows a second are at least so many."""
    least = spec.gates.compression.min_speed_ratio
    told = f"{found.speed_ratio:.2f} times fp32's rows a second, at least {least:.2f} is asked for"
    return verdict("speed", found.speed_ratio >= least - ROUNDING, told)
