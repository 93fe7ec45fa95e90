"""How large an index of stability must be before it says something: how far calm partitions are from the reference.

Two things move the index of a partition that has not drifted. Sampling: with B bins that hold anything, n rows here and
m in the reference, it is about (B - 1) (1/n + 1/m) on average, distributed as chi-square with B - 1 degrees of freedom
times (1/n + 1/m) (B. Yurdakul and J. Naranjo, Statistical properties of the population stability index, 2020). And the
use case's own nights: a Sunday is not a Monday, a storm is weather. The second is measured: each partition of the
reference period against all others of it.

    u_c            the usual index of column c: the median over the reference's partitions
    M_r            how unusual partition r was in its most unusual column: max over c of (PSI_c,r - S_c,r) / u_c, with
                   S = (B - 1) (1/n + 1/m), what sampling gives on average
    threshold_c(n) = X (1/n + 1/m) + k u_c
                   k: the ceil((R + 1) (1 - rate))-th smallest of R values M_r; X: what chi-square with B_c - 1 degrees
                   exceeds with a probability of rate / columns

If the next partition and those of the reference come from one distribution in any order, any of its columns is past its
threshold with a probability of `rate` at most (split conformal prediction: Vovk et al., Algorithmic Learning in a
Random World, 2005); X, which is more than B - 1, makes the same hold for partitions of other
sizes. Nights that follow a season or a trend do not come so: what grows all year is past its threshold
one day, and rightly. With fewer than 1/rate - 1 partitions the quantile does not exist: then the threshold is what
sampling explains, with the rate shared among the columns (Bonferroni), and the largest unexplained rest that was seen
on top of it, which promises nothing.

Partitions that are far out themselves are set aside before any of this: a blizzard in the reference is no measure of
calm, and three such nights of two hundred made every column deaf. Far out is beyond J. Tukey's outer fence (Exploratory
Data Analysis, 1977) of log M_r: the upper quartile and three times the distance of the quartiles. So the rate is that
of nights like the others; a night like those that were set aside is an alarm, and should be.

Several partitions taken together are held to the thresholds of one partition of so many rows: they differ from the
reference no more than single ones do, if anything less.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, median, quantiles

from pipelines.records import Unrest

#: Of what is kept: JSON is read by people as well.
_DIGITS = 6
_FEWEST_FOR_QUARTILES = 20


def chi_square(freedom: int, above: float) -> float:
    """The value that a chi-square variable exceeds with a probability (E. Wilson and M. Hilferty, 1931).

    Within 3 % of the exact one for probabilities of 0.01 to 0.1. It errs upwards for rarer ones: at 1e-6 by 15 % with
    one degree of freedom, by 3 % with nine.

    >>> round(chi_square(9, 0.01), 2)
    21.65
    """
    step = 2 / (9 * freedom)
    return float(freedom * max(1 - step + NormalDist().inv_cdf(1 - above) * math.sqrt(step), 0.0) ** 3)


@dataclass(frozen=True, kw_only=True, slots=True)
class Night:
    """One partition of the reference period against the others: index and degrees of freedom by column."""

    rows: int
    others: int
    """Rows of the other partitions."""
    psi: Mapping[str, float]
    freedom: Mapping[str, int]


def unrest(nights: Sequence[Night]) -> Unrest | None:
    """What the partitions of a reference period tell of calm; None of fewer than two.

    Args:
        nights: all of the same columns.
    """
    if len(nights) < 2:
        return None
    usual = {column: _middle([night.psi[column] for night in nights]) for column in nights[0].psi}
    rests = [{column: max(night.psi[column] - _sampling(night, column), 0.0) for column in usual} for night in nights]
    strange = [max((rest[column] / value for column, value in usual.items() if value), default=0.0) for rest in rests]
    fence = _outer_fence(strange)
    calm = [(rest, value) for rest, value in zip(rests, strange, strict=True) if value <= fence]
    return Unrest(
        usual={column: round(value, _DIGITS) for column, value in usual.items()},
        worst={column: round(max(rest[column] for rest, _ in calm), _DIGITS) for column in usual},
        strangest=tuple(sorted(round(value, 4) for _, value in calm)),
        set_aside=len(nights) - len(calm),
    )


def _outer_fence(values: Sequence[float]) -> float:
    """Tukey's, of the logarithms; infinite with too few values for quartiles."""
    positive = [math.log(value) for value in values if value > 0]
    if len(positive) < _FEWEST_FOR_QUARTILES:
        return math.inf
    lower, _, upper = quantiles(positive, n=4)
    return math.exp(min(upper + 3 * (upper - lower), 700.0))


def _middle(values: Sequence[float]) -> float:
    """The median; where most are 0, as of a column that hardly ever changes, the mean."""
    return median(values) or fmean(values)


def _sampling(night: Night, column: str) -> float:
    return night.freedom[column] * (1 / night.rows + 1 / night.others)


@dataclass(frozen=True, kw_only=True, slots=True)
class Scale:
    """What is usual of one comparison."""

    known: Unrest | None
    rows: int
    reference_rows: int
    columns: int
    """How many share the rate."""

    def threshold(self, column: str, freedom: int, rate: float) -> float:
        """The index from which a column is unusual; see the module.

        Args:
            freedom: bins that hold anything, less one.
            rate: of calm partitions that may have any column past its threshold.
        """
        noise = 1 / max(self.rows, 1) + 1 / max(self.reference_rows, 1)
        least = chi_square(freedom, rate / max(self.columns, 1)) * noise
        if self.known is None or column not in self.known.usual:
            return least
        factor = quantile(self.known.strangest, rate)
        return least + (self.known.worst[column] if factor is None else factor * self.known.usual[column])


def quantile(ascending: Sequence[float], rate: float) -> float | None:
    """The value that the next one of the same kind exceeds with a probability of `rate` at most; None: too few values.

    >>> quantile([1, 2, 3], 0.25), quantile([1, 2, 3], 0.2)
    (3, None)
    """
    place = math.ceil(round((len(ascending) + 1) * (1 - rate), 9))
    return ascending[place - 1] if place <= len(ascending) else None


def freedom(counts: Iterable[int], current: Iterable[int]) -> int:
    """Degrees of freedom of a comparison: bins that either side has rows in, less one; one at least."""
    return max(sum(1 for before, now in zip(counts, current, strict=True) if before or now) - 1, 1)
