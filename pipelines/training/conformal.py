"""Intervals of a regression: split conformal prediction on the validation rows, as they are served.

The label of a new row lies with probability 1 - alpha between score + l and score + u, where l and u are the
floor((n + 1) alpha / 2)-th smallest and largest of the residuals (label - score) of n rows that the model did not learn
from, if those rows and the new one come from one distribution in any order (Papadopoulos et al., ECML 2002; Vovk et
al., Algorithmic Learning in a Random World, 2005; Lei et al., arXiv 1604.04173; signed residuals, each side apart:
Linusson et al., PAKDD 2014). The errors of a model differ with what it says, so that each bin of scores has an l and u
of its own: coverage then holds in each bin (Mondrian; Bostrom and Johansson, COPA 2020), at different widths.

What is not so exact here: early stopping chose the student's epoch on these very rows, and a student hears there what
its teacher says, so that residuals may be a little too small; the bins' edges are quantiles of the same scores; and
the months that are scored are newer. The holdout, which none of it saw, tells what came of it (`measure`). Each row
counts once, whatever it weighed in the loss.

Shapes: n rows, b bins.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from pipelines.intervals import Intervals
from pipelines.records import Coverage
from pipelines.spec import LEVELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Bins have about so many rows, and there are no more than so many bins.
_BIN_ROWS, _BINS = 200, 20
#: Residuals of a bin beyond either end, so that an end does not hang on one row; all rows together need one.
_BEYOND = 5


def fit(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> dict[str, Any]:
    """The intervals of each level of `LEVELS` for which there are rows enough, as model.json keeps them.

    Args:
        scores: [n], of the graph that is served.
        labels: [n], in the label's unit.

    Returns:
        `rows`, and `levels`: level, edges [b - 1], below [b] (at most 0), above [b] (at least 0), rows [b]. No levels
        where a score is not finite.
    """
    exact, truth = scores.astype(np.float64), labels.astype(np.float64)
    known = np.isfinite(exact).all()
    return {
        "method": "split conformal: signed residuals by bins of the score",
        "calibrated_on": "validation rows; early stopping saw them too",
        "rows": len(exact),
        "levels": [found for level in LEVELS if known and (found := _level(level, exact, truth - exact))],
    }


def measure(told: dict[str, Any], scores: NDArray[np.float32], labels: NDArray[np.floating]) -> tuple[Coverage, ...]:
    """Share of rows within their interval and its mean width, of each level.

    Args:
        told: what `fit` gave.
        scores: [n], of rows that it did not see.
        labels: [n].
    """
    found = []
    for one in told["levels"]:
        low, high = Intervals.of({"intervals": told}, one["level"]).around(scores)
        width = float(np.mean(high.astype(np.float64) - low))
        covered = float(np.mean((low <= labels) & (labels <= high)))
        found.append(Coverage(level=one["level"], rows=len(scores), coverage=covered, mean_width=width))
    return tuple(found)


def rank(level: float, rows: int) -> int:
    """Which residual is an end, counted from either side, from 1; 0 where there are too few rows.

    >>> rank(0.9, 18), rank(0.9, 19), rank(0.9, 999)
    (0, 1, 50)
    """
    # In fractions: 20 times half of 1 - 0.9 is less than 1 in floats.
    return int((rows + 1) * (1 - Fraction(str(level))) / 2)


def _level(level: float, scores: NDArray[np.float64], residuals: NDArray[np.float64]) -> dict[str, Any] | None:
    if not rank(level, len(scores)):
        return None
    edges = _edges(scores)
    counts = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1)
    edges = edges[_kept(level, counts)]
    place = np.searchsorted(edges, scores, side="right")
    below, above, rows = [], [], []
    for index in range(len(edges) + 1):
        inside = np.sort(residuals[place == index])
        at = rank(level, len(inside))
        # The score itself is always within: an interval beside it would be of no use, and wider covers no less.
        below.append(min(float(inside[at - 1]), 0.0))
        above.append(max(float(inside[-at]), 0.0))
        rows.append(len(inside))
    return {"level": level, "edges": edges.tolist(), "below": below, "above": above, "rows": rows}


def _edges(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """[b - 1] between bins of about equal rows: halfway between two scores, so that a last bit changes no bin."""
    bins = int(np.clip(len(scores) // _BIN_ROWS, 1, _BINS))
    values = np.unique(scores)
    cuts = np.quantile(scores, np.arange(1, bins) / bins, method="inverted_cdf")
    after = np.unique(np.searchsorted(values, cuts))
    after = after[after > 0]
    return (values[after - 1] + values[after]) / 2


def _kept(level: float, counts: NDArray[np.int64]) -> list[int]:
    """Which edges stay when each bin with too few rows for the level is joined with its neighbour."""
    kept, held = [], 0
    for index, count in enumerate(counts):
        held += int(count)
        if rank(level, held) >= _BEYOND:
            kept.append(index)
            held = 0
    # What is left at the end is joined with the bin before it; with none, all rows are one bin.
    return kept[:-1]
