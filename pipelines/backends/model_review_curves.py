"""The points of the plots, from scores and labels. Shapes: n rows.

Curves of many rows are drawn through at most a few hundred of their points; what is said of them is of every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Vector = NDArray[np.float64]

Points = list[tuple[float, float]]
_POINTS = 200
_BINS = 15


@dataclass(frozen=True)
class Bin:
    """Rows of similar scores."""

    rows: int
    mean: float
    """Of their scores."""
    observed: float
    """Of their labels."""


def roc(label: Vector, score: Vector) -> tuple[Points, float] | None:
    """(false-positive rate, true-positive rate) by threshold, and the area; None where there is one class only."""
    true, false = _counts(label, score)
    if not true[-1] or not false[-1]:
        return None
    across, up = false / false[-1], true / true[-1]
    return _thinned(across, up), float(np.trapezoid(up, across))


def precision_recall(label: Vector, score: Vector) -> tuple[Points, float] | None:
    """(recall, precision) by threshold, and the average precision: precision weighted by the recall that it adds."""
    true, false = _counts(label, score)
    if not true[-1]:
        return None
    recall = true[1:] / true[-1]
    precision = true[1:] / (true[1:] + false[1:])
    area = float((np.diff(recall, prepend=0.0) * precision).sum())
    return _thinned(recall, precision), area


def _counts(label: Vector, score: Vector) -> tuple[Vector, Vector]:
    """True and false positives when the highest 0, 1, 2, ... distinct scores are taken for positive."""
    order = np.argsort(-score, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(score[order])), len(score) - 1)
    true = np.cumsum(label[order] > 0)[ends]
    zero = np.zeros(1)
    return np.append(zero, true), np.append(zero, ends + 1 - true)


def calibration(label: Vector, score: Vector) -> list[Bin]:
    """At most 15 bins of equal rows by score; rows of equal score share one."""
    edges = np.unique(np.quantile(score, np.arange(1, _BINS) / _BINS, method="lower"))
    place = np.searchsorted(edges, score, side="left")
    rows = np.bincount(place)
    means, observed = np.bincount(place, weights=score), np.bincount(place, weights=label)
    return [
        Bin(rows=int(count), mean=float(mean / count), observed=float(seen / count))
        for count, mean, seen in zip(rows, means, observed, strict=True)
        if count
    ]


def calibration_error(bins: Sequence[Bin]) -> float:
    """Mean over rows of |mean score - mean label| of the row's bin."""
    return sum(part.rows * abs(part.mean - part.observed) for part in bins) / sum(part.rows for part in bins)


def histogram(values: Vector, low: float, high: float, bins: int = 40) -> Points:
    """Outline of the share of rows by bin of equal width; what lies outside is counted at the ends."""
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    shares = counts / max(len(values), 1)
    points: Points = [(float(edges[0]), 0.0)]
    for place, share in enumerate(shares):
        points += [(float(edges[place]), float(share)), (float(edges[place + 1]), float(share))]
    return [*points, (float(edges[-1]), 0.0)]


def grid(across: Vector, up: Vector, low: float, high: float, bins: int = 40) -> list[list[float]]:
    """Rows by cell of a square; what lies outside is counted at its edge."""
    counts, _, _ = np.histogram2d(
        np.clip(across, low, high), np.clip(up, low, high), bins=bins, range=((low, high), (low, high))
    )
    found: list[list[float]] = counts.tolist()
    return found


def middle(*values: Vector, share: float = 0.99) -> tuple[float, float]:
    """The range that holds this share of all values, and never nothing."""
    rest = (1 - share) / 2
    low, high = (float(end) for end in np.quantile(np.concatenate(values), (rest, 1 - rest)))
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _thinned(across: Vector, up: Vector) -> Points:
    """Points evenly along the curve, its ends among them."""
    if len(across) > _POINTS:
        along = np.append(0.0, np.cumsum(np.hypot(np.diff(across), np.diff(up))))
        wanted = np.linspace(0.0, along[-1], _POINTS)
        kept = np.unique(np.append(np.searchsorted(along, wanted[:-1]), len(across) - 1))
        across, up = across[kept], up[kept]
    return [(float(left), float(top)) for left, top in zip(across, up, strict=True)]
