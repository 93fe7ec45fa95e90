"""From a trained student to the files that are served: the fp32 graph, and its compressed form.

int8 is for processors, fp16 and bf16 are for GPUs: on a processor ONNX Runtime computes fp16 layers in fp32, between
casts, so that fp16 halves the file and not the time. bf16 is no file: torch runs `student.safetensors` under autocast
(`distill.logits(..., bf16=True)`), since ONNX runtimes have few bfloat16 operators.
"""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict, dataclass
from typing import Any, Literal

import onnx

from pipelines.metrics import metrics
from pipelines.spec import GREATER_IS_BETTER
from pipelines.training import graph, quantize
from pipelines.training.calibrate import Calibration
from pipelines.training.data import Table
from pipelines.training.networks import Student
from pipelines.training.prepare import Preparation
from pipelines.training.scorecards import OnnxScorer
from pipelines.training.session import Session

MODEL, FP32 = "model.onnx", "student_fp32.onnx"


@dataclass(frozen=True, slots=True)
class Scale:
    """Regression: a prediction is output * scale + mean, in the label's unit. Otherwise 0 and 1."""

    mean: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Compression:
    """What was done to the student, for model.json."""

    method: Literal["int8", "fp16", "none"]
    widths: tuple[int, ...]
    """Hidden units as served, after pruning."""
    layers: tuple[str, ...]
    """The precision of each layer, first to last."""
    sensitive_layers: Literal["int8", "fp32"] | None = None
    """int8 only: the precision of the first and the last layer."""
    metric: str | None = None
    """int8 only: by which auto chose, on the validation rows."""
    validation: dict[str, float] | None = None
    """int8 only: that metric of `fp32`, and of what was tried: `int8`, `int8_fp32_ends` (first and last in fp32)."""
    calibration_rows: int | None = None
    """int8 only: rows on which the ranges were calibrated."""

    def facts(self) -> dict[str, Any]:
        """As JSON."""
        told = asdict(self)
        if self.validation is not None:
            # A metric that is not defined, as the AUC of one class, is null: JSON has no NaN.
            told["validation"] = {name: x if math.isfinite(x) else None for name, x in self.validation.items()}
        return {
            **told,
            "bf16": "not in this file: torch computes student.safetensors under bfloat16 autocast on a GPU that has it",
        }


def write(
    session: Session,
    preparation: Preparation,
    student: Student,
    calibration: Calibration,
    label: Scale,
    train: Table,
    validation: Table,
) -> Compression:
    """Writes `student_fp32.onnx` and `model.onnx`, the one that is served."""
    spec, out = session.spec, session.job.out
    method = spec.training.compression
    widths = tuple(layer.out_features for layer in student.linears[:-1])
    if method == "int8":
        drawn = quantize.calibration_rows(train, spec.training.calibration_rows, spec.training.seed)
        preparation, student = quantize.equalize(preparation, student, preparation.encode(drawn))
    full = graph.build(spec, preparation, student, calibration, label.mean, label.scale)
    onnx.save(full, out / FP32)
    if method == "int8":
        return _int8(session, widths, drawn, validation)
    if method == "fp16":
        half = graph.build(spec, preparation, student, calibration, label.mean, label.scale, half=True)
        onnx.save(half, out / MODEL)
        return Compression(method=method, widths=widths, layers=(*["fp16"] * len(widths), "fp32"))
    shutil.copyfile(out / FP32, out / MODEL)
    return Compression(method=method, widths=widths, layers=("fp32",) * (len(widths) + 1))


def _int8(session: Session, widths: tuple[int, ...], drawn: Table, validation: Table) -> Compression:
    spec, out, layers = session.spec, session.job.out, len(widths) + 1
    ends = (graph.layer_name(0), graph.layer_name(layers - 1))

    def write_int8(keep: tuple[str, ...]) -> None:
        names = spec.features
        quantize.quantize(out / FP32, out / MODEL, drawn, names.numeric, names.categorical, keep)

    def judged(file: str) -> float:
        scores = OnnxScorer(out / file, spec, session.threads)(validation)
        return metrics(spec.label.task, validation.label, scores, len(spec.label.classes) or None)[spec.gates.metric]

    found = {"fp32": judged(FP32)}
    asked = spec.training.sensitive_layers
    if asked != "fp32":
        write_int8(())
        found["int8"] = judged(MODEL)
    loss = _loss(spec.gates.metric, found["fp32"], found.get("int8", math.nan))
    # Not "loss > bound": a loss that is not a number keeps the ends in fp32, too.
    spared = asked == "fp32" or (asked == "auto" and not loss <= spec.gates.max_loss_to_fp32)
    if spared:
        write_int8(ends)
        found["int8_fp32_ends"] = judged(MODEL)
    end: Literal["int8", "fp32"] = "fp32" if spared else "int8"
    return Compression(
        method="int8",
        widths=widths,
        layers=(end, *["int8"] * (layers - 2), end),
        sensitive_layers=end,
        metric=spec.gates.metric,
        validation=found,
        calibration_rows=len(drawn),
    )


def _loss(metric: str, fp32: float, int8: float) -> float:
    """How much worse int8 is; negative where it is better."""
    return fp32 - int8 if GREATER_IS_BETTER[metric] else int8 - fp32
