"""Where the challenger is worse than the champion: by the values that the spec names, and in the worst corner found.

A search over thousands of slices finds a bad one among equal models: the unluckiest. So the slice is chosen on one half
of the rows and measured on the other, which has had no say. It is chosen by what it surely loses, not by what it seems
to lose: small slices seem to lose most. (Slices by value, bin and pair, ranked with their uncertainty: Chung et al.,
"Slice Finder", arXiv 1807.06068.)

Shapes: n rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from pipelines.metrics import checked, metrics, row_losses
from pipelines.records import SliceGain
from pipelines.resampling import paired_gain
from pipelines.spec import CLASS_ROWS, GREATER_IS_BETTER, UseCase

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Codes = NDArray[np.int64]
    Rows = NDArray[np.int64]

#: Declared slices that are kept, the worst ones: a column of ten thousand values would fill the record.
_KEPT = 100
#: Bounds of the search: rows looked at, values of a column, bins of a number, columns that are paired, and slices that
#: are looked at closely, each with so many resamples.
_SEARCH_ROWS, _VALUES, _BINS, _PAIRED, _CLOSELY, _RESAMPLES = 100_000, 50, 5, 20, 20, 100
#: Seed of the row hash that halves the holdout; a number of its own, so that no other choice correlates.
_HALVES_SEED = 20260117


@dataclass(frozen=True)
class Rivals:
    """Two models that have scored the same rows."""

    spec: UseCase
    label: NDArray[np.floating]
    """[n]."""
    mine: NDArray[np.floating]
    """The challenger's scores, [n] or [n, classes]."""
    other: NDArray[np.floating]

    def of(self, rows: Rows) -> Rivals:
        """On some of the rows."""
        return replace(self, label=self.label[rows], mine=self.mine[rows], other=self.other[rows])

    def tellable(self, least: int) -> bool:
        """Whether there are enough rows: so many in all and, where the metric is the AUC, ten of each class."""
        if len(self.label) < least:
            return False
        ones = int((self.label == 1).sum())
        return self.spec.gates.metric != "auc" or min(ones, len(self.label) - ones) >= CLASS_ROWS

    def gain(self, name: str) -> SliceGain:
        """Both metrics, and how much better the challenger's is."""
        gates, classes = self.spec.gates, len(self.spec.label.classes) or None
        mine, other = (
            metrics(self.spec.label.task, self.label, score, classes)[gates.metric] for score in (self.mine, self.other)
        )
        sign = 1 if GREATER_IS_BETTER[gates.metric] else -1
        return SliceGain(slice=name, rows=len(self.label), mine=mine, other=other, gain=sign * (mine - other))

    def harm(self) -> NDArray[np.float64]:
        """[n], how much worse the challenger treats each row; its mean over a slice says where to look."""
        task, classes = self.spec.label.task, len(self.spec.label.classes) or None
        metric = self.spec.gates.metric
        label, mine = checked(task, self.label, self.mine, classes)
        _, other = checked(task, self.label, self.other, classes)
        if metric == "auc":
            return placements(label, other) - placements(label, mine)
        sign = -1 if GREATER_IS_BETTER[metric] else 1
        return sign * (row_losses(task, metric, label, mine) - row_losses(task, metric, label, other))


@dataclass(frozen=True)
class Column:
    """A feature, cut into groups of rows."""

    codes: Codes
    """[n], the group of each row."""
    names: tuple[str | None, ...]
    """Of each group; None: rows that are no slice, such as those of rare values."""


def declared(rivals: Rivals, frame: pl.DataFrame) -> tuple[SliceGain, ...]:
    """Of each value of `features.slices` that has `gates.slice_rows` rows; at most a hundred, those that fell most."""
    least = rivals.spec.gates.slice_rows
    found = []
    for feature in rivals.spec.features.slices:
        column = by_value(frame.get_column(feature), least, None)
        for code, name in enumerate(column.names):
            rows = rivals.of(np.flatnonzero(column.codes == code))
            if name is not None and rows.tellable(least):
                found.append(rows.gain(name))
    kept = sorted(range(len(found)), key=lambda place: found[place].gain)[:_KEPT]
    return tuple(found[place] for place in sorted(kept))


def worst(rivals: Rivals, frame: pl.DataFrame, seed: int) -> SliceGain | None:
    """The slice that surely loses most on one half of the rows, as it does on the other.

    Looked through are values of categorical features, bins of numeric ones, missing values, and pairs of any of them,
    of `gates.slice_rows` rows or more, half of which at least lie in either half. None where there is no such slice.
    """
    spec = rivals.spec
    key = list(dict.fromkeys(("partition", *spec.rows.key)))
    hashes = frame.select(key).hash_rows(seed=_HALVES_SEED).to_numpy()
    order = np.argsort(hashes, kind="stable")  # of the hash, not of the file: a bounded look is at rows of every night
    odd = hashes[order] % 2 == 1
    looked, measured = order[~odd][:_SEARCH_ROWS], order[odd]
    columns = _columns(spec, frame, looked)
    least = math.ceil(spec.gates.slice_rows / 2)
    closest: list[tuple[float, str, Codes, int]] = []
    first = rivals.of(looked)
    for _, name, codes, code in _screened(first.harm(), columns, looked, least, spec.gates.confidence):
        rows = first.of(np.flatnonzero(codes[looked] == code))
        if rows.tellable(least):
            found = paired_gain(
                spec.label.task,
                spec.gates.metric,
                rows.label,
                rows.mine,
                rows.other,
                len(spec.label.classes) or None,
                level=spec.gates.confidence,
                resamples=_RESAMPLES,
                seed=seed,
            )
            closest.append((found.high, name, codes, code))
    for _, name, codes, code in sorted(closest, key=lambda each: each[:2]):
        rows = rivals.of(measured[codes[measured] == code])
        if rows.tellable(least):
            return rows.gain(name)
    return None


def _columns(spec: UseCase, frame: pl.DataFrame, looked: Rows) -> list[Column]:
    numeric = [by_bin(frame.get_column(name), looked) for name in spec.features.numeric]
    text = [by_value(frame.get_column(name), spec.gates.slice_rows, _VALUES) for name in spec.features.categorical]
    return numeric + text


def by_value(column: pl.Series, least: int, most: int | None) -> Column:
    """Groups of the values, null among them, that so many rows have; of those at most so many, the most frequent."""
    counts = column.value_counts().rename({"count": "rows"} if column.name != "rows" else {})
    words = counts.columns[0]
    counts = counts.filter(pl.col("rows") >= least).sort(["rows", words], descending=[True, False])
    values = counts.get_column(words).head(most or counts.height).to_list()
    names = [f"{column.name} is missing" if value is None else f"{column.name} = {_short(value)}" for value in values]
    codes = column.replace_strict(values, list(range(len(values))), default=len(values), return_dtype=pl.Int64)
    return Column(codes=codes.to_numpy(), names=(*names, None))


def by_bin(column: pl.Series, looked: Rows) -> Column:
    """Five bins of about equal rows, by what is looked at, and one of what is missing. Their edges are round: a person
    can ask for the same rows."""
    values = column.cast(pl.Float64).fill_null(math.nan).to_numpy()
    there = values[looked][np.isfinite(values[looked])]
    cuts = np.quantile(there, np.arange(1, _BINS) / _BINS) if there.size else np.empty(0)
    edges = sorted({float(f"{cut:.4g}") for cut in cuts})
    name, words = column.name, [f"{edge:g}" for edge in edges]
    names: list[str | None] = [None]
    if words:
        between = [f"{name} in [{low}, {high})" for low, high in pairwise(words)]
        names = [f"{name} < {words[0]}", *between, f"{name} >= {words[-1]}"]
    codes = np.searchsorted(np.array(edges), values, side="right").astype(np.int64)
    codes[np.isnan(values)] = len(names)
    return Column(codes=codes, names=(*names, f"{name} is missing"))


def _screened(
    harm: NDArray[np.float64], columns: list[Column], looked: Rows, least: int, confidence: float
) -> list[tuple[float, str, Codes, int]]:
    """The slices whose mean harm has the highest lower end: end, name, codes of all rows, and the slice's code."""
    z = NormalDist().inv_cdf(confidence)
    squares = harm**2

    def ends(column: Column) -> NDArray[np.float64]:
        codes, groups = column.codes[looked], len(column.names)
        rows = np.bincount(codes, minlength=groups)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.bincount(codes, harm, groups) / rows
            spread = np.sqrt(np.maximum(np.bincount(codes, squares, groups) / rows - mean**2, 0))
            low = mean - z * spread / np.sqrt(rows)
        named = np.array([name is not None for name in column.names])
        return np.where(named & (rows >= least), low, -np.inf)

    def promising(column: Column) -> Iterator[tuple[float, str, Codes, int]]:
        low = ends(column)
        for code in np.argsort(-low, kind="stable")[:_CLOSELY]:
            if low[code] > -np.inf:
                yield float(low[code]), column.names[code] or "", column.codes, int(code)

    singles = [(max(ends(column), default=-np.inf), place) for place, column in enumerate(columns)]
    chosen = [columns[place] for _, place in sorted(singles, key=lambda each: (-each[0], each[1]))[:_PAIRED]]
    found = [slice_ for column in columns for slice_ in promising(column)]
    for one, two in combinations(chosen, 2):
        found = [*found, *promising(_pair(one, two))]
        found = sorted(found, key=lambda each: (-each[0], each[1]))[:_CLOSELY]
    return sorted(found, key=lambda each: (-each[0], each[1]))[:_CLOSELY]


def _pair(one: Column, two: Column) -> Column:
    names = [
        None if first is None or second is None else f"{first} and {second}"
        for first in one.names
        for second in two.names
    ]
    return Column(codes=one.codes * len(two.names) + two.codes, names=tuple(names))


def placements(label: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n], of each row the share of rows of the other class that its score is on the right side of, ties half: the
    parts of the AUC (DeLong et al., "Comparing the areas under two or more correlated ROC curves", 1988)."""
    one = label == 1
    found = np.empty(len(score))
    for mine, right in ((one, 1), (~one, -1)):
        others = np.sort(right * score[~mine])
        scores = right * score[mine]
        below, upto = (np.searchsorted(others, scores, side) for side in ("left", "right"))
        found[mine] = (below + upto) / (2 * max(len(others), 1))
    return found


def _short(value: object) -> str:
    word = str(value)
    return word if len(word) <= 60 else word[:59] + "…"
