"""What is learnt from the training rows before any gradient: fills, clips, scales and vocabularies.

The served graph does the same arithmetic (graph.py); a parity test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.training.data import F32, Table

#: Categories of fewer training rows than this share the index of the unseen ones.
RARE_ROWS = 10
#: Codes of every categorical feature: unseen or rare, missing, then the vocabulary in order.
UNKNOWN, MISSING, FIRST = 0, 1, 2
#: What a null string looks like to the graph. "" is the convention; the others are what ONNX Runtime makes of
#: None, NaN and pandas.NA in an object array, so that a plain data frame works as well.
NULL_WORDS = ("", "None", "nan", "<NA>")


@dataclass(frozen=True, slots=True)
class Encoded:
    """What the networks see."""

    numeric: F32
    """[n, v], standardised, no NaN: only columns that vary."""
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
    fill: F32
    """[v] medians."""
    low: F32
    high: F32
    """[v] clips, which also tame infinities: the range of the training rows, without far outliers."""
    mean: F32
    scale: F32
    """[v] z = (x - mean) * scale."""
    vocabularies: tuple[tuple[str, ...], ...]

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Codes of each categorical feature."""
        return tuple(len(words) + FIRST for words in self.vocabularies)

    def encode(self, table: Table) -> Encoded:
        """Raw columns to network inputs, in float32 as the graph computes."""
        raw = table.numeric[:, self.varying]
        filled = np.where(np.isnan(raw), self.fill, raw)
        z = (np.minimum(np.maximum(filled, self.low), self.high) - self.mean) * self.scale
        missing = np.isnan(table.numeric[:, self.flagged]).astype(np.float32)
        codes = np.empty((len(table), len(self.vocabularies)), np.int64)
        for i, (column, words) in enumerate(zip(table.categorical, self.vocabularies, strict=True)):
            codes[:, i] = _codes(column, words)
        return Encoded(z.astype(np.float32), missing, codes)


def fit(table: Table) -> Preparation:
    """Learns the preparation from training rows.

    Fill is the median of the finite values. The clips are the smallest and largest finite values, but no further
    from the central 99% than five times its width.
    """
    varying, flagged, rows = [], [], []
    for i in range(table.numeric.shape[1]):
        column = table.numeric[:, i].astype(np.float64)
        null = np.isnan(column)
        finite = column[np.isfinite(column)]
        if RARE_ROWS <= null.sum() < len(column):
            flagged.append(i)
        if finite.size and finite.min() < finite.max():
            stats = _numeric(finite)
            if stats is not None:
                varying.append(i)
                rows.append(stats)
    fill, low, high, mean, scale = np.array(rows, np.float32).reshape(-1, 5).T
    return Preparation(
        varying=tuple(varying),
        flagged=tuple(flagged),
        fill=fill,
        low=low,
        high=high,
        mean=mean,
        scale=scale,
        vocabularies=tuple(_vocabulary(column) for column in table.categorical),
    )


def _numeric(finite: NDArray[np.float64]) -> tuple[float, float, float, float, float] | None:
    low, middle, high = (float(value) for value in np.quantile(finite, (0.005, 0.5, 0.995)))
    reach = 5 * (high - low) or np.inf
    bottom, top = max(float(finite.min()), low - reach), min(float(finite.max()), high + reach)
    clipped = np.clip(finite, bottom, top)
    mean, spread = float(clipped.mean()), float(clipped.std())
    with np.errstate(over="ignore", divide="ignore"):
        scale = float(np.float32(1 / spread)) if spread > 0 else np.inf
    return (middle, bottom, top, mean, scale) if np.isfinite(scale) and scale > 0 else None


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
    return lookup[pc.fill_null(column.indices, len(lookup) - 1).to_numpy(zero_copy_only=False)]
