"""From a trained student to the files that are served: the fp32 graph, and its compressed form."""

from __future__ import annotations

import shutil
from dataclasses import dataclass

import onnx

from pipelines.training import graph, quantize
from pipelines.training.calibrate import Calibration
from pipelines.training.data import Table
from pipelines.training.networks import Student
from pipelines.training.prepare import Preparation
from pipelines.training.session import Session

MODEL, FP32 = "model.onnx", "student_fp32.onnx"


@dataclass(frozen=True, slots=True)
class Scale:
    """Regression: a prediction is output * scale + mean, in the label's unit. Otherwise 0 and 1."""

    mean: float = 0.0
    scale: float = 1.0


def write(
    session: Session,
    preparation: Preparation,
    student: Student,
    calibration: Calibration,
    label: Scale,
    train: Table,
) -> None:
    """Writes `student_fp32.onnx` and `model.onnx`, the one that is served."""
    spec, out = session.spec, session.job.out
    training = spec.training
    drawn = quantize.calibration_rows(train, training.calibration_rows, training.seed)
    smooth, even = quantize.equalize(preparation, student, preparation.encode(drawn))
    onnx.save(graph.build(spec, smooth, even, calibration, label.mean, label.scale), out / FP32)
    if training.compression == "int8":
        quantize.quantize(out / FP32, out / MODEL, drawn, spec.features.numeric, spec.features.categorical)
    else:
        shutil.copyfile(out / FP32, out / MODEL)
