"""What is learnt from the training rows before any gradient: fills, clips, scales and vocabularies.

The served graph does the same arithmetic (graph.py); a parity test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.training.data import F32, Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Categories of fewer training rows than this share the index of the unseen ones.
RARE_ROWS = 10
#: Codes of every categorical feature: unseen or rare, missing, then the vocabulary in order.
UNKNOWN, MISSING, FIRST = 0, 1, 2
#: Where smooth clipping ends.
BOUND = 3.0
#: Rows that are encoded at a time: a whole table's temporaries would take several times its memory.
_BLOCK_ROWS = 16_384
#: What a null string looks like to the graph. "" is the convention; the others are what ONNX Runtime makes of
#: None, NaN and pandas.NA in an object array, so that a plain data frame works as well.
NULL_WORDS = ("", "None", "nan", "<NA>")


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the networks see."""

    numeric: F32
    """[n, v], centred, scaled and bounded, no NaN: only columns that vary."""
    missing: F32
    """[n, u], 1 where null: only columns that had both nulls and values."""
    codes: NDArray[np.int64]
    """[n, c]."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """Fills, clips and scales by varying numeric column; vocabularies by categorical column."""

    varying: tuple[int, ...]
    """Numeric columns with at least two distinct finite values; the others carry no signal and are left out."""
    flagged: tuple[int, ...]
    """Numeric columns whose nulls get an indicator."""
    centre: F32
    """[v] medians; a null is filled with it."""
    low: F32
    high: F32
    """[v] clips, which also tame infinities: the range of the training rows, without far outliers."""
    scale: F32
    """[v] z = (x - centre) * scale, half of the values within one unit."""
    width: F32
    """[v] what `bound` divides by; 1 until the student is equalized for int8."""
    vocabularies: tuple[tuple[str, ...], ...]

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Codes of each categorical feature."""
        return tuple(len(words) + FIRST for words in self.vocabularies)

    def encode(self, table: Table) -> Encoded:
        """Raw columns to network inputs, in float32 as the graph computes."""
        numeric = np.empty((len(table), len(self.varying)), np.float32)
        missing = np.empty((len(table), len(self.flagged)), np.float32)
        for begin in range(0, len(table), _BLOCK_ROWS):
            block = slice(begin, begin + _BLOCK_ROWS)
            raw = table.numeric[block, self.varying]
            filled = np.where(np.isnan(raw), self.centre, raw)
            z = (np.minimum(np.maximum(filled, self.low), self.high) - self.centre) * self.scale
            numeric[block] = bound(z, self.width)
            missing[block] = np.isnan(table.numeric[block, self.flagged])
        codes = np.empty((len(table), len(self.vocabularies)), np.int64)
        for i, (column, words) in enumerate(zip(table.categorical, self.vocabularies, strict=True)):
            codes[:, i] = _codes(column, words)
        return Encoded(numeric, missing, codes)


def bound(z: F32, width: F32) -> F32:
    """Smooth clipping, z / sqrt(1 + (z / 3)^2), from -3 to 3 (RealMLP, arXiv 2407.04491), over `width`.

    A far tail keeps its order and takes little of the range, so that 8 bits are enough for the rest.
    """
    square = width * width
    bounded: F32 = z / np.sqrt(z * z * (square / BOUND**2) + square)
    return bounded


def fit(table: Table) -> Preparation:
    """Learns the preparation from training rows.

    The centre is the median of the finite values; the scale is one over their interquartile range, or two over their
    range when that is 0. The clips are the smallest and the largest finite value, but no further from the central 99%
    than five times its width.
    """
    varying, flagged, rows = [], [], []
    for i in range(table.numeric.shape[1]):
        column = table.numeric[:, i].astype(np.float64)
        null = np.isnan(column)
        finite = column[np.isfinite(column)]
        if RARE_ROWS <= null.sum() < len(column):
            flagged.append(i)
        if finite.size and finite.min() < finite.max() and (stats := _numeric(finite)) is not None:
            varying.append(i)
            rows.append(stats)
    centre, low, high, scale = np.array(rows, np.float32).reshape(-1, 4).T
    return Preparation(
        varying=tuple(varying),
        flagged=tuple(flagged),
        centre=centre,
        low=low,
        high=high,
        scale=scale,
        width=np.ones_like(scale),
        vocabularies=tuple(_vocabulary(column) for column in table.categorical),
    )


def _numeric(finite: NDArray[np.float64]) -> tuple[float, float, float, float] | None:
    quantiles = np.quantile(finite, (0.005, 0.25, 0.5, 0.75, 0.995))
    low, quarter, middle, three_quarters, high = (float(value) for value in quantiles)
    reach = 5 * (high - low) or np.inf
    bottom, top = max(float(finite.min()), low - reach), min(float(finite.max()), high + reach)
    scale = 1 / (three_quarters - quarter) if three_quarters > quarter else 2 / (top - bottom)
    # Differences past what float32 can hold cannot be learnt from.
    return (middle, bottom, top, scale) if 1e-30 < scale < 1e30 and np.float32(bottom) < np.float32(top) else None


def _vocabulary(column: pa.DictionaryArray) -> tuple[str, ...]:
    indices = column.indices.drop_null().to_numpy()
    counts = np.bincount(indices, minlength=len(column.dictionary))
    words: Sequence[str] = column.dictionary.to_pylist()
    return tuple(
        sorted(word for word, rows in zip(words, counts, strict=True) if rows >= RARE_ROWS and word not in NULL_WORDS)
    )


def _codes(column: pa.DictionaryArray, words: Sequence[str]) -> NDArray[np.int64]:
    code = {word: FIRST + i for i, word in enumerate(words)} | dict.fromkeys(NULL_WORDS, MISSING)
    lookup = np.array([code.get(word, UNKNOWN) for word in column.dictionary.to_pylist()] + [MISSING], np.int64)
    # Nulls have no index: they are sent to the last entry.
    codes: NDArray[np.int64] = lookup[pc.fill_null(column.indices, len(lookup) - 1).to_numpy(zero_copy_only=False)]
    return codes
