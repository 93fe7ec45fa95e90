"""Every model on the same holdout rows: metrics, overall and by slice, calibration, size and speed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.metrics import calibration_error, metrics
from pipelines.records import Scorecard
from pipelines.spec import UseCase
from pipelines.training.data import Table
from pipelines.training.measures import Scorer, by_slice, latencies

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MEASURE_SECONDS = 0.3


class OnnxScorer:
    """An ONNX file on ONNX Runtime's CPU provider, raw columns in."""

    def __init__(self, path: Path, spec: UseCase, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Idle threads sleep: spinning ones would take the processor from whatever runs next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._spec = spec

    def __call__(self, table: Table) -> NDArray[np.floating]:
        """Scores of the whole table, tile by tile."""
        feeds = table.feeds(self._spec.features.numeric, self._spec.features.categorical)
        rows = self._spec.scoring.tile_rows
        tiles = []
        for start in range(0, len(table), rows):
            tile = {name: values[start : start + rows] for name, values in feeds.items()}
            tiles.append(self._session.run(["score"], tile)[0])
        return np.concatenate(tiles)


def measure(spec: UseCase, name: str, scorer: Scorer, holdout: Table, size: int | None) -> Scorecard:
    """One model's scorecard; rows a second, from columns in memory to scores, are those of the fastest repeat of the
    whole holdout in a third of a second.

    Args:
        size: bytes of the model; None for a rule that is no model, whose speed says nothing either.
    """
    score = scorer(holdout)
    fastest, spent = float("inf"), 0.0
    while size is not None and spent < _MEASURE_SECONDS:
        begin = time.perf_counter()
        scorer(holdout)
        took = max(time.perf_counter() - begin, 1e-9)
        fastest, spent = min(fastest, took), spent + took
    return Scorecard(
        model=name,
        rows=len(holdout),
        metrics=metrics(spec.label.task, holdout.label, score, len(spec.label.classes) or None),
        rows_per_second=round(len(holdout) / fastest, 1) if size is not None else None,
        bytes=size,
        calibration_error=_rounded(calibration_error(spec.label.task, holdout.label, score)),
        slices=by_slice(spec, holdout, score),
        latencies=latencies(scorer, holdout) if size is not None else (),
    )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
