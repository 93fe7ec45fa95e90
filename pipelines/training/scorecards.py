"""Every model on the same holdout rows: metrics, and rows a second from columns in memory to scores."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.metrics import metrics
from pipelines.records import Scorecard
from pipelines.spec import UseCase
from pipelines.training.data import Table

#: A table's scores: [n], or [n, classes].
Scorer = Callable[[Table], NDArray[np.floating]]

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
    """One model's scorecard; the speed is the best of the repeats that fit in a third of a second.

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
    )
