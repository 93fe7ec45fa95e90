"""What a scorecard says beside metrics and calibration: slices, latency. Shapes: n rows."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.metrics import metrics
from pipelines.records import Latency, Slice
from pipelines.spec import UseCase
from pipelines.training.data import Table

#: A table's scores: [n], or [n, classes].
Scorer = Callable[[Table], NDArray[np.floating]]

#: Most values of a feature that a scorecard lists, rows from which on a metric is told, and characters of a value.
_SLICES, _SLICE_ROWS, _SLICE_WORD = 20, 50, 60
#: A batch of 1 and one of 4096, each for so many seconds at most, and so many times.
_BATCHES = ((1, 0.05), (4096, 0.15))
_REPEATS = 200


def by_slice(spec: UseCase, table: Table, score: NDArray[np.floating]) -> tuple[Slice, ...]:
    """The gate's metric on the rows of each of the most frequent values of each of `features.slices`."""
    found: list[Slice] = []
    for feature in spec.features.slices:
        column = table.categorical[spec.features.categorical.index(feature)]
        # Nulls are a value of their own, after the others.
        codes = pc.fill_null(column.indices, len(column.dictionary)).to_numpy(zero_copy_only=False)
        counts = np.bincount(codes, minlength=len(column.dictionary) + 1)
        words = [*column.dictionary.to_pylist(), None]
        frequent = sorted(np.flatnonzero(counts), key=lambda code: (-counts[code], words[code] or ""))
        for code in frequent[:_SLICES]:
            mine = codes == code
            metric = _metric(spec, table.label[mine], score[mine])
            found.append(Slice(feature=feature, value=_short(words[code]), rows=int(counts[code]), metric=metric))
    return tuple(found)


def _metric(spec: UseCase, label: NDArray[np.floating], score: NDArray[np.floating]) -> float | None:
    if len(label) < _SLICE_ROWS:
        return None
    value = metrics(spec.label.task, label, score, len(spec.label.classes) or None)[spec.gates.metric]
    return round(value, 6) if math.isfinite(value) else None


def _short(word: str | None) -> str | None:
    return word if word is None or len(word) <= _SLICE_WORD else word[: _SLICE_WORD - 1] + "…"


def latencies(scorer: Scorer, holdout: Table) -> tuple[Latency, ...]:
    """p50 and p99 of a batch of 1 and of 4096 holdout rows (repeated where there are fewer), in a fraction of a second.

    Each is measured on batches of different rows, after one that is not counted.
    """
    found = []
    rng = np.random.default_rng(0)
    for rows, seconds in _BATCHES:
        batches = [holdout.take(rng.integers(0, len(holdout), rows)) for _ in range(8)]
        scorer(batches[0])
        took: list[float] = []
        while len(took) < _REPEATS and (sum(took) < seconds or not took):
            begin = time.perf_counter()
            scorer(batches[len(took) % len(batches)])
            took.append(time.perf_counter() - begin)
        p50, p99 = (float(np.quantile(took, q, method="higher")) * 1e3 for q in (0.5, 0.99))
        found.append(Latency(rows=rows, p50_ms=round(p50, 4), p99_ms=round(p99, 4), repeats=len(took)))
    return tuple(found)
