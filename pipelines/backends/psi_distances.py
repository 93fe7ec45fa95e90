"""Distances of two histograms over the same bins."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: A category is missed when it would be absent by chance once in so many partitions.
_CHANCE = 1e-6
#: Missed categories that are named.
_NAMED = 5


def psi(reference: Sequence[float], current: Sequence[float]) -> float:
    """The population stability index of two histograms over the same bins.

    PSI = sum over bins of (p - q) ln(p / q), with p and q the bins' shares of the current and of the reference rows:
    Jeffreys' divergence, the sum of both Kullback-Leibler divergences (H. Jeffreys 1946; S. Kullback and R. Leibler
    1951). The name and the reading (below 0.1 little, from 0.25 much) are from credit scoring: N. Siddiqi, Credit Risk
    Scorecards, 2006. With no drift at all its mean is about (bins - 1) (1/n + 1/m) for n and m rows (B. Yurdakul and
    J. Naranjo, Statistical properties of the population stability index, 2020): many bins need many rows.

    Smoothing: no share is taken as less than half a row of the smaller side, which is less than that side can show.
    So the index is finite, a stray row in a bin that the other side lacks is no news, and equal proportions give 0.

    Args:
        reference: counts, one a bin.
        current: counts of the same bins.

    Returns:
        0 or more, the same with the sides exchanged; NaN when a side has no rows, for then there is nothing to compare.

    >>> round(psi([50, 50], [80, 20]), 4)
    0.4159
    """
    if len(reference) != len(current):
        raise ValueError(f"two histograms need the same bins, however: {len(reference)} and {len(current)}")
    rows_reference, rows_current = math.fsum(reference), math.fsum(current)
    if rows_reference <= 0 or rows_current <= 0:
        return math.nan
    floor = 0.5 / min(rows_reference, rows_current)
    terms = []
    for before, now in zip(reference, current, strict=True):
        q, p = before / rows_reference, now / rows_current
        q, p = q if q > floor else floor, p if p > floor else floor
        terms.append((p - q) * math.log(p / q))
    return math.fsum(terms)


def jensen_shannon(reference: Sequence[float], current: Sequence[float]) -> float:
    """The Jensen-Shannon distance of two histograms: the root of the divergence to base 2 (J. Lin, Divergence measures
    based on the Shannon entropy, 1991; D. Endres and J. Schindelin, A new metric for probability distributions, 2003).

    Returns:
        0 (the same shares) to 1 (no bin in common); NaN when a side has no rows.

    >>> jensen_shannon([1, 0], [0, 5]), jensen_shannon([1, 3], [2, 6])
    (1.0, 0.0)
    """
    rows_reference, rows_current = math.fsum(reference), math.fsum(current)
    if rows_reference <= 0 or rows_current <= 0:
        return math.nan
    terms = []
    for before, now in zip(reference, current, strict=True):
        q, p = before / rows_reference, now / rows_current
        middle = (p + q) / 2
        terms += [share / 2 * math.log2(share / middle) for share in (p, q) if share > 0]
    return math.sqrt(min(max(math.fsum(terms), 0.0), 1.0))


def vanished(reference: Sequence[int], current: Sequence[int], words: Sequence[str]) -> tuple[str, ...]:
    """Categories without a row here, which so many rows of the reference's shares lack once in a million times.

    Args:
        reference: counts, the categories' first.
        current: of the same bins.
        words: the categories.

    Returns:
        The five most frequent ones at most.
    """
    rows_reference, rows = sum(reference), sum(current)
    missed = [
        (count, word)
        for count, now, word in zip(reference, current, words, strict=False)
        if not now and 0 < count < rows_reference and rows * math.log1p(-count / rows_reference) < math.log(_CHANCE)
    ]
    return tuple(word for _, word in sorted(missed, key=lambda item: (-item[0], item[1]))[:_NAMED])
