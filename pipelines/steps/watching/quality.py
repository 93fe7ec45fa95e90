"""The watched metric with a 95 % interval: measured on labels, or expected from calibrated scores before there are any.

Expected: if a score is the probability that it says, labels can be drawn from the scores themselves, and the metric on
drawn labels is what the metric on real ones will be near. (Confidence-based performance estimation; the idea is that of
J. Guillory et al., Predicting with confidence on unseen distributions, 2021, and of NannyML's CBPE.) It notices what a
change of the rows does to the metric. It cannot notice that the relation between rows and labels has changed, nor that
scores are calibrated no longer: only labels tell. A regression's score says nothing of its own error, so there is no
such estimate of one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev
from typing import TYPE_CHECKING

import polars as pl

from pipelines.errors import TrainingError
from pipelines.metrics import row_losses
from pipelines.records import Estimate
from pipelines.resampling import interval, replicates, statistic
from pipelines.spec import UseCase
from pipelines.steps.predictions import score_columns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Fewer rows than this give no metric of their own: an AUC of a handful of rows is noise.
FEWEST = 50
#: Resamples, and drawings of labels, of an interval. A fixed seed: the same rows give the same figures.
_TIMES, _SEED = 200, 20131231
#: Rows that an interval is made from at most; the deviation of more follows from these.
_MOST_ROWS = 100_000
#: Of each end by itself.
_LEVEL = 0.975


def measured(spec: UseCase, rows: pl.DataFrame) -> Estimate | None:
    """The metric on labelled rows; None with too few of them, or where they do not define it (one class).

    Args:
        rows: score columns and `label`.
    """
    import numpy as np

    if rows.height < FEWEST:
        return None
    label, scores = rows.get_column("label").to_numpy(), _scores(spec, rows)
    try:
        whole = statistic(spec.label.task, spec.watched_metric, label, scores, len(spec.label.classes) or None)
        value = whole(np.ones(rows.height, np.uint8))
        some, few = whole, rows.height
        if rows.height > _MOST_ROWS:
            few = _MOST_ROWS
            chosen = np.random.default_rng(_SEED).choice(rows.height, few, replace=False)
            args = (label[chosen], scores[chosen], len(spec.label.classes) or None)
            some = statistic(spec.label.task, spec.watched_metric, *args)
        drawn = replicates([some], few, resamples=_TIMES, seed=_SEED)[:, 0]
        around = interval(some(np.ones(few, np.uint8)), drawn, _LEVEL)
    except TrainingError:  # one class, a score that is no number: there is nothing to say
        return None
    shrink = math.sqrt(few / rows.height)
    low, high = (value + (end - around.value) * shrink for end in (around.low, around.high))
    return Estimate(value=value, low=low, high=high, rows=rows.height)


#: Student's t that the larger end of 95 % has, by degrees of freedom from 1 (W. S. Gosset, 1908); later the normal's.
_STUDENT = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


def over_nights(spec: UseCase, whole: Estimate | None, nights: Sequence[Estimate]) -> Estimate | None:
    """The window's metric with an interval that knows that rows of a night share its weather.

    A resampling of rows takes them as independent. Nights differ by more than that explains, so the interval is no
    narrower than Student's of the nights' own figures: t s / sqrt(G) of G nights. Of a single night nothing is known
    of how much nights differ: its interval is its rows' alone. It ends where the metric does: no metric is below 0,
    and no AUC and no accuracy above 1.

    Args:
        whole: `measured` on the rows of all nights.
        nights: `measured` of each night that has it.
    """
    if whole is None or len(nights) < 2:
        return whole
    freedom = len(nights) - 1
    t = _STUDENT[freedom - 1] if freedom <= len(_STUDENT) else 1.96 + 2.5 / freedom
    most = 1.0 if spec.watched_metric in ("auc", "accuracy") else math.inf
    half = t * stdev([night.value for night in nights]) / math.sqrt(len(nights))
    return whole.model_copy(
        update={
            "low": max(0.0, min(whole.low, whole.value - half)),
            "high": min(most, max(whole.high, whole.value + half)),
        }
    )


def expected(spec: UseCase, rows: pl.DataFrame) -> Estimate | None:
    """What the metric is expected to be on rows without labels; None for a regression, and with too few rows.

    Args:
        rows: score columns.
    """
    import numpy as np

    if spec.label.task == "regression" or rows.height < FEWEST:
        return None
    scores = _scores(spec, rows).astype(np.float64)
    if not np.isfinite(scores).all():
        return None
    generator = np.random.default_rng(_SEED)
    shrink = 1.0
    if rows.height > _MOST_ROWS:
        scores = scores[generator.choice(rows.height, _MOST_ROWS, replace=False)]
        shrink = math.sqrt(_MOST_ROWS / rows.height)
    metric = _Drawn(spec, scores)
    found = np.array([metric(generator) for _ in range(_TIMES)])
    found = found[np.isfinite(found)]
    if len(found) < _TIMES // 2:
        return None
    value = float(found.mean())
    low, high = np.quantile(found, [1 - _LEVEL, _LEVEL])
    return Estimate(
        value=value,
        low=value + (float(low) - value) * shrink,
        high=value + (float(high) - value) * shrink,
        rows=rows.height,
    )


class _Drawn:
    """The metric on labels that are drawn from the scores."""

    def __init__(self, spec: UseCase, scores: NDArray[np.float64]) -> None:
        import numpy as np

        self._task, self._metric, self._scores = spec.label.task, spec.watched_metric, scores
        if spec.label.task == "multiclass":
            total = scores.sum(axis=1, keepdims=True)
            self._edges = np.cumsum(scores / np.where(total > 0, total, 1), axis=1)
        if self._metric == "auc":
            # Ties share their mean: each pair of equal scores counts half.
            self._ranks = pl.Series(scores).rank("average").to_numpy()

    def __call__(self, generator: np.random.Generator) -> float:
        import numpy as np

        drawn = generator.random(len(self._scores))
        if self._task == "multiclass":
            last = self._scores.shape[1] - 1
            label = np.minimum((drawn[:, None] > self._edges).sum(axis=1), last).astype(np.float64)
        else:
            label = (drawn < self._scores).astype(np.float64)
        if self._metric != "auc":
            return float(row_losses(self._task, self._metric, label, self._scores).mean())
        ones = float(label.sum())
        pairs = ones * (len(label) - ones)
        # Mann and Whitney's U of the ranks.
        return (float(self._ranks @ label) - ones * (ones + 1) / 2) / pairs if pairs else math.nan


def _scores(spec: UseCase, rows: pl.DataFrame) -> NDArray[np.floating]:
    names = score_columns(spec)
    scores = rows.select(names).to_numpy()
    return scores if len(names) > 1 else scores[:, 0]
