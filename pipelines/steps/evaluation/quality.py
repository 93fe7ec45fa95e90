"""How good the challenger is, and the champion, on the same rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.metrics import metrics
from pipelines.records import Scorecard
from pipelines.steps.evaluation.meeting import Meeting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def scorecard(meeting: Meeting, name: str, folder: Path, scores: NDArray[np.float32]) -> Scorecard:
    """One model's metrics on the holdout.

    Args:
        scores: [n], or [n, classes].
    """
    spec = meeting.spec
    return Scorecard(
        model=name,
        rows=meeting.frame.height,
        metrics=metrics(spec.label.task, meeting.labels, scores, len(spec.label.classes) or None),
        bytes=(folder / "model.onnx").stat().st_size,
    )


def single_features(meeting: Meeting) -> Mapping[str, Any]:
    """What a training measured of each feature alone; nothing where it measured nothing, which the gate refuses."""
    path = meeting.folder / "features.json"
    return {"single_features": json.loads(path.read_text("utf-8"))["single"]} if path.is_file() else {}
