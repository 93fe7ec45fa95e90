"""How good the challenger is, and the champion, on the same rows, and how sure that is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.metrics import calibration_error, metrics
from pipelines.records import Comparison, Scorecard
from pipelines.resampling import gain_interval, interval, replicates, rows_needed, statistic
from pipelines.steps.evaluation import slices
from pipelines.steps.evaluation.meeting import Meeting

if TYPE_CHECKING:
    from numpy.typing import NDArray


def scorecard(meeting: Meeting, name: str, folder: Path, scores: NDArray[np.float32]) -> Scorecard:
    """One model's metrics and calibration on the holdout.

    Args:
        scores: [n], or [n, classes].
    """
    task = meeting.spec.label.task
    return Scorecard(
        model=name,
        rows=meeting.frame.height,
        metrics=metrics(task, meeting.labels, scores, _classes(meeting)),
        bytes=(folder / "model.onnx").stat().st_size,
        calibration_error=calibration_error(task, meeting.labels, scores),
    )


def single_features(meeting: Meeting) -> Mapping[str, Any]:
    """What a training measured of each feature alone; nothing where it measured nothing, which the gate refuses."""
    path = meeting.folder / "features.json"
    return {"single_features": json.loads(path.read_text("utf-8"))["single"]} if path.is_file() else {}


def classes(meeting: Meeting) -> Mapping[str, Any]:
    """`rarest_class`: a class of the spec that the holdout does not hold has no rows."""
    label = meeting.spec.label
    if label.task == "regression":
        return {}
    counts = np.bincount(meeting.labels.astype(np.int64), minlength=len(label.classes) or 2)
    return {"rarest_class": int(counts.min())}


def certainty(meeting: Meeting) -> Mapping[str, Any]:
    """Intervals of the challenger's metrics and, where there is a champion, of the gain over it, with the rows that it
    takes and the slices: all on the same resamples, which the holdout's digest seeds, so that a repeat says the same.

    Raises:
        TrainingError: a metric is not defined on these rows; the gates that need it refuse.
    """
    spec, gates, label, rows = meeting.spec, meeting.spec.gates, meeting.spec.label, meeting.frame.height
    names = list(dict.fromkeys((gates.metric, *metrics(label.task, meeting.labels, meeting.scores, _classes(meeting)))))
    mine = [statistic(label.task, name, meeting.labels, meeting.scores, _classes(meeting)) for name in names]
    other = meeting.champion_scores
    theirs = [] if other is None else [statistic(label.task, gates.metric, meeting.labels, other, _classes(meeting))]
    seed = int(meeting.holdout.digest[:8], 16)
    found = replicates([*mine, *theirs], rows, resamples=gates.resamples, seed=seed)
    once = np.ones(rows, np.uint8)
    values = [of(once) for of in (*mine, *theirs)]
    intervals = {name: interval(values[i], found[:, i], gates.confidence) for i, name in enumerate(names)}
    measured: dict[str, Any] = {"interval": intervals[gates.metric], "intervals": intervals}
    if other is None:
        return measured
    gain = gain_interval(gates.metric, (values[0], values[-1]), found[:, [0, -1]], gates.confidence)
    rivals = slices.Rivals(spec, meeting.labels, meeting.scores, other)
    comparison = Comparison(
        against="champion",
        gain=gain,
        slices=slices.declared(rivals, meeting.frame),
        worst=slices.worst(rivals, meeting.frame, seed),
    )
    measured["comparisons"] = (comparison,)
    if gates.detectable is not None:
        measured["rows_needed"] = rows_needed(
            gain.deviation, rows, gates.detectable, level=gates.confidence, power=gates.power
        )
    return measured


def _classes(meeting: Meeting) -> int | None:
    return len(meeting.spec.label.classes) or None
