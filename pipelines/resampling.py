"""How far a metric, or the difference of two models on the same rows, may be from what more rows would show.

The Poisson bootstrap: in each resample a row counts 0, 1, 2, ... times, Poisson of mean 1 and independent of the
others, which is drawing n of n rows with replacement but for the number drawn (Hanley and MacGibbon, "Creating
non-parametric bootstrap samples using Poisson frequencies", 2006; Chamandy et al., "Estimating uncertainty for massive
data streams", 2012). Both models meet the same counts, so what they share cancels out of their difference.

Shapes: n rows, r resamples, k statistics.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pipelines.errors import TrainingError, explain
from pipelines.machine import usable_cores
from pipelines.metrics import checked, row_losses
from pipelines.records import Interval
from pipelines.spec import GREATER_IS_BETTER, Task

#: [n], how often each row counts.
Counts = NDArray[np.uint8]
#: A metric of rows that count several times. NaN where those of the resample do not define it (one class).
Statistic = Callable[[Counts], float]

#: Resamples that one generator draws: chunks, not threads, have a seed, so that any number of threads draws the same.
_CHUNK = 25
#: Most resamples, as a share, that may leave a metric undefined: past it the classes are too few to say anything.
_UNDEFINED = 0.01


def _poisson() -> Counts:
    """Counts by 16 random bits: the inverse of Poisson's distribution function at the middle of each of 65,536 steps.

    Mean and variance are 1 to four decimals, and one look-up a row takes a tenth of drawing from the distribution.
    """
    terms = np.exp(-1.0) / np.array([math.factorial(k) for k in range(12)])
    middles = (np.arange(65_536) + 0.5) / 65_536
    return np.searchsorted(np.cumsum(terms), middles).astype(np.uint8)


_POISSON = _poisson()


class _Auc:
    """The area under the ROC curve: the share of pairs of a 1 and a 0 that are in order, ties half.

    Sorted once; a resample is a running sum over the zeros and a look-up for each one.
    """

    def __init__(self, label: NDArray[np.float64], score: NDArray[np.float64]) -> None:
        order = np.argsort(score)
        one = label[order] == 1
        self._ones, self._zeros = order[one], order[~one]
        ones, zeros = score[self._ones], score[self._zeros]
        self._below, self._upto = np.searchsorted(zeros, ones, "left"), np.searchsorted(zeros, ones, "right")
        self._tied = bool((self._below != self._upto).any())

    def __call__(self, counts: Counts) -> float:
        zeros = np.zeros(len(self._zeros) + 1, np.int64)
        np.cumsum(counts.take(self._zeros), out=zeros[1:])
        ones = counts.take(self._ones)
        # Integers: exact, and their sum of products is no BLAS call, of which two at once wait for each other.
        won = int((ones * zeros.take(self._below)).sum())
        twice = won + (int((ones * zeros.take(self._upto)).sum()) if self._tied else won)
        pairs = int(ones.sum(dtype=np.int64)) * int(zeros[-1])
        return twice / (2 * pairs) if pairs else math.nan


class _Mean:
    """The mean of a loss of each row, or its root."""

    def __init__(self, losses: NDArray[np.float64], *, root: bool) -> None:
        self._losses, self._root = losses, root

    def __call__(self, counts: Counts) -> float:
        total = int(counts.sum(dtype=np.int64))
        if not total:
            return math.nan
        mean = float((counts * self._losses).sum()) / total
        return math.sqrt(mean) if self._root else mean


def statistic(
    task: Task, metric: str, label: NDArray[np.floating], score: NDArray[np.floating], classes: int | None = None
) -> Statistic:
    """A metric of `pipelines.metrics`, made ready for rows that count several times.

    Args:
        label: [n].
        score: [n]; multiclass [n, classes].

    Raises:
        TrainingError: shapes that do not fit, a label outside the classes, a score that is not finite, one class only
            (auc), or a metric that is not of this task.
    """
    labels, scores = checked(task, label, score, classes)
    if not np.isfinite(scores).all():
        raise TrainingError(
            explain(f"resampling {metric}", f"{int((~np.isfinite(scores)).sum())} scores are not finite")
        )
    if metric == "auc" and task == "binary":
        if labels.min() == labels.max():
            raise TrainingError(explain("resampling auc", f"every label is {labels[0]:.0f}", allowed="rows of 0 and 1"))
        return _Auc(labels, scores)
    return _Mean(row_losses(task, metric, labels, scores), root=metric == "rmse")


def replicates(
    statistics: Sequence[Statistic], rows: int, *, resamples: int, seed: int, threads: int | None = None
) -> NDArray[np.float64]:
    """Every statistic on the same resamples.

    Args:
        threads: that work at once; what this process may use when not given. Changes no number.

    Returns:
        [r, k].
    """

    def chunk(begin: int) -> NDArray[np.float64]:
        generator = np.random.default_rng([seed, begin])
        found = np.empty((min(_CHUNK, resamples - begin), len(statistics)))
        for row in found:
            counts = _POISSON.take(generator.integers(0, 65_536, rows, dtype=np.uint16))
            row[:] = [of(counts) for of in statistics]
        return found

    with ThreadPoolExecutor(threads or usable_cores(), thread_name_prefix="resample") as pool:
        return np.concatenate(list(pool.map(chunk, range(0, resamples, _CHUNK))))


def interval(value: float, found: NDArray[np.float64], level: float) -> Interval:
    """The interval of a figure from its resamples: each end is the further out of the normal end (the figure and
    z deviations) and the percentile end (the quantile of the resamples); Davison and Hinkley, "Bootstrap methods and
    their application", 1997, chapter 5.

    Either by itself promotes too often somewhere. Of a thousand simulated holdouts of 100 to 500 rows with no gain past
    the margin, at a level of 95%, the lower end passed in 3% to 8% by the normal end (8.2%: log loss, where errors are
    rare and large), in 3% to 7% by the percentile end (6.8%: AUC with ten of the rarest class), in 3% to 9% by the
    basic end, and in 3% to 7% by the further of the first two.

    Args:
        value: on all rows, once each.
        found: [r]; what is not finite is left out.
        level: of each end by itself.

    Raises:
        TrainingError: the figure is not finite, or more than one resample in a hundred does not define it.
    """
    defined = found[np.isfinite(found)]
    if not math.isfinite(value) or len(defined) < (1 - _UNDEFINED) * len(found):
        raise TrainingError(
            explain(
                "resampling",
                f"the figure is {value}, and {len(found) - len(defined)} of {len(found)} resamples do not define it",
                allowed=f"a number, and at most {_UNDEFINED:.0%} undefined",
                remedy="more rows of the rarest class",
            )
        )
    deviation = float(defined.std(ddof=1))
    reach = NormalDist().inv_cdf(level) * deviation
    low, high = np.quantile(defined, [1 - level, level])
    return Interval(
        value=value,
        low=min(value - reach, float(low)),
        high=max(value + reach, float(high)),
        deviation=deviation,
        level=level,
        resamples=len(found),
    )


def paired_gain(
    task: Task,
    metric: str,
    label: NDArray[np.floating],
    mine: NDArray[np.floating],
    other: NDArray[np.floating],
    classes: int | None = None,
    *,
    level: float,
    resamples: int,
    seed: int,
    threads: int | None = None,
) -> Interval:
    """How much better the first model's metric is on the same rows: positive is better, whichever way the metric goes.

    Args:
        label: [n].
        mine: [n], or [n, classes].
        other: as `mine`.

    Raises:
        TrainingError: see `statistic` and `interval`.
    """
    pair = [statistic(task, metric, label, score, classes) for score in (mine, other)]
    found = replicates(pair, len(label), resamples=resamples, seed=seed, threads=threads)
    once = np.ones(len(label), np.uint8)
    return gain_interval(metric, (pair[0](once), pair[1](once)), found, level)


def gain_interval(metric: str, values: tuple[float, float], found: NDArray[np.float64], level: float) -> Interval:
    """The interval of the first model's gain over the second.

    Args:
        values: both metrics on all rows.
        found: [r, 2], both on each resample.
    """
    sign = 1 if GREATER_IS_BETTER[metric] else -1
    return interval(sign * (values[0] - values[1]), sign * (found[:, 0] - found[:, 1]), level)


def rows_needed(deviation: float, rows: int, detectable: float, *, level: float, power: float) -> int:
    """Rows with which the lower end of a gain's interval is past its margin with the chance `power`, when the true gain
    is `detectable` past it.

    The deviation falls with the root of the rows: n = rows ((z_level + z_power) deviation / detectable)^2, the
    textbook's size of a one-sided test.

    Args:
        deviation: of the gain on so many rows.
    """
    normal = NormalDist()
    reach = (normal.inv_cdf(level) + normal.inv_cdf(power)) * deviation / detectable
    return max(1, math.ceil(rows * max(reach, 0.0) ** 2))
