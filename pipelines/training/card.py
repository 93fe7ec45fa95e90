"""model.json: what a reader of the artifact needs to know, in plain JSON."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from pipelines.spec import UseCase
from pipelines.training import graph, tree_graph
from pipelines.training.calibrate import Calibration
from pipelines.training.compress import Compression, Scale
from pipelines.training.prepare import FIRST, MISSING, NULL_WORDS, UNKNOWN, Preparation
from pipelines.training.session import Session

#: Raised when a reader of the old file would misread the new one.
FORMAT = 1
_LIBRARIES = ("torch", "tabm", "rtdl-num-embeddings", "onnx", "onnxruntime", "lightgbm", "numpy")


def served(spec: UseCase) -> str:
    """The name of the scorecard of `model.onnx`."""
    if spec.training.model == "lightgbm":
        return "lightgbm_onnx"
    return {"int8": "student_int8", "fp16": "student_fp16", "none": "student_fp32"}[spec.training.compression]


def card(
    spec: UseCase,
    preparation: Preparation,
    rows: Mapping[str, int],
    calibration: Calibration,
    label: Scale,
    compression: Compression | None,
    threshold: float | None,
    intervals: dict[str, Any] | None,
    session: Session,
) -> dict[str, Any]:
    """Everything about the model that is not a weight or a metric.

    Args:
        threshold: the score from which a row is decided positive (binary).
        intervals: what `conformal.fit` gave (regression).
    """
    numeric = spec.features.numeric
    boosted = spec.training.model == "lightgbm"
    return {
        "format": FORMAT,
        "use_case": spec.name,
        "spec_digest": spec.digest,
        "task": spec.label.task,
        "classes": list(spec.label.classes),
        "numeric": list(numeric),
        "categorical": list(spec.features.categorical),
        "served": served(spec),
        "inputs": {
            "numeric": "float32 [n], NaN where null"
            + ("" if boosted else "; infinities and outliers are clipped inside"),
            "categorical": 'string [n], null as ""; values that were rare or unseen share one code',
        },
        "null_strings": list(NULL_WORDS),
        "output": {
            "name": graph.SCORE,
            "meaning": {
                "binary": "[n] probability of the positive class",
                "multiclass": "[n, classes] probabilities, in the order of classes",
                "regression": "[n] value in the label's unit",
            }[spec.label.task],
        },
        "vocabularies": {
            name: list(words) for name, words in zip(spec.features.categorical, preparation.vocabularies, strict=True)
        },
        "codes": {
            "unknown": UNKNOWN,
            "missing": MISSING,
            "first": FIRST,
            "tensors": {name: graph.code_name(name) for name in spec.features.categorical},
        },
        "constant_features": [name for i, name in enumerate(numeric) if i not in preparation.varying],
        "example": _example(spec, preparation),
        "missing_indicators": [] if boosted else [numeric[i] for i in preparation.flagged],
        "calibration": {
            "method": calibration.method,
            "temperature": calibration.temperature,
            "knots": [list(knot) for knot in calibration.knots],
            "validation_log_loss": dict(calibration.losses),
        },
        "threshold": threshold,
        "threshold_by": None if threshold is None else _rule(spec),
        "intervals": intervals,
        "label_mean": label.mean,
        "label_scale": label.scale,
        "student_widths": [] if compression is None else list(compression.widths),
        "compression": None if compression is None else compression.facts(),
        "teacher": None if boosted else spec.training.teacher.model_dump(),
        "seed": spec.training.seed,
        "threads": session.threads,
        "rows": dict(rows),
        "seconds": dict(session.seconds),
        "opset": {
            "ai.onnx": graph.OPSET,
            "ai.onnx.ml": tree_graph.ML_OPSET if boosted else graph.ML_OPSET,
            "ir": tree_graph.IR_VERSION if boosted else graph.IR_VERSION,
        },
        "libraries": {"python": platform.python_version(), **{name: version(name) for name in _LIBRARIES}},
    }


def _rule(spec: UseCase) -> str:
    """f1, prior or given."""
    asked = spec.training.threshold
    return asked if isinstance(asked, str) else "given"


def _example(spec: UseCase, preparation: Preparation) -> dict[str, Any]:
    """A typical row that nobody ever was: medians (0 where nothing varies) and the first word of each vocabulary."""
    row: dict[str, Any] = dict.fromkeys(spec.features.numeric, 0.0)
    for i, middle in zip(preparation.varying, preparation.centre, strict=True):
        row[spec.features.numeric[i]] = float(middle)
    for name, words in zip(spec.features.categorical, preparation.vocabularies, strict=True):
        row[name] = words[0] if words else ""
    return row
