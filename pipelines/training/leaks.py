"""How much each feature says about the label by itself: one that says nearly all of it is a copy of the outcome.

Shapes: n rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.spec import Task, UseCase
from pipelines.training.data import Table

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ROWS = 50_000
_SEED = 20240229
#: Bins of a numeric column: as many as give each some rows, up to so many. Fewer distinct values are their own bins.
_BINS, _BIN_ROWS = 256, 10
#: Rows that the whole half's mean counts for beside a bin's own.
_PRIOR_ROWS = 0.1
#: What the figures of a task are.
MEASURES: dict[Task, str] = {"binary": "auc", "multiclass": "accuracy_gain", "regression": "rank_r2"}


def measure(spec: UseCase, train: Table) -> dict[str, Any]:
    """features.json: each feature's association with the label on at most 50,000 training rows, drawn by a fixed seed.

    A feature is cut into bins (quantiles, single values, words, null apart), the label's mean by bin is learnt on one
    half of the rows and judged on the other, and the other way round. So copies are found that rise, fall or do
    neither, and a key that is different in every row is none. What two features say together is not looked at.

    Returns:
        `measure`, `rows` (that were looked at), and `single`, by feature:
        binary: auc, the area under the ROC curve, 0.5 for a feature that says nothing.
        multiclass: accuracy_gain, (accuracy - share of the commonest class) / (1 - that share), 0 for nothing. Plain
        accuracy would be high for every feature where one class is common.
        regression: rank_r2, the R2 of the label's ranks, 0 for nothing. Of the values themselves, a far tail alone
        could hide a copy. Of the numeric value itself, without bins, where that is higher.
    """
    rows = np.random.default_rng(_SEED).permutation(len(train))[:_ROWS]
    drawn = train.take(rows)
    task = spec.label.task
    label = (_ranks(drawn.label) if task == "regression" else drawn.label).astype(np.float64)
    single = {}
    for i, name in enumerate(spec.features.numeric):
        value = drawn.numeric[:, i]
        found = _association(task, _bins(value), label)
        single[name] = max(found, _fine(task, value, label))
    for name, column in zip(spec.features.categorical, drawn.categorical, strict=True):
        single[name] = _association(task, _words(column), label)
    return {"measure": MEASURES[task], "rows": len(drawn), "single": single}


def _ranks(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """[n] in 0..1; equal values share their mean rank."""
    _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = ((np.cumsum(counts) - (counts + 1) / 2) / max(len(values) - 1, 1))[index]
    return ranks


def _bins(value: NDArray[np.float32]) -> NDArray[np.int64]:
    """[n] codes from 0; nulls have the last one."""
    known = value[~np.isnan(value)]
    distinct = np.unique(known)
    if len(distinct) > min(_BINS, len(known) // 4):
        bins = int(np.clip(len(known) // (2 * _BIN_ROWS), 2, _BINS))
        distinct = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1], method="lower"))
    codes = np.searchsorted(distinct, value, side="right")
    return np.where(np.isnan(value), len(distinct) + 1, codes)


def _words(column: pa.DictionaryArray) -> NDArray[np.int64]:
    codes: NDArray[np.int64] = pc.fill_null(column.indices, len(column.dictionary)).to_numpy(zero_copy_only=False)
    return codes.astype(np.int64)


def _association(task: Task, codes: NDArray[np.int64], label: NDArray[np.float64]) -> float:
    """The mean, over both halves, of how well the other half's bins foretell this one's labels; NaN for no figure."""
    # The rows were shuffled: every other one is a fair half.
    even = np.arange(len(label)) % 2 == 0
    foretell = _commonest if task == "multiclass" else _means
    figure = {"binary": _auc, "multiclass": _accuracy_gain, "regression": _r2}[task]
    found = []
    for learn, judge in ((even, ~even), (~even, even)):
        foretold = foretell(codes[learn], label[learn], int(codes.max()) + 1)[codes[judge]]
        found.append(figure(foretold, label[judge]))
    known = [value for value in found if value is not None]
    return float(np.mean(known)) if known else float("nan")


def _means(codes: NDArray[np.int64], label: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """[bins]: the mean label of each bin, drawn towards the mean of all."""
    counts, sums = np.bincount(codes, minlength=bins), np.bincount(codes, label, minlength=bins)
    means: NDArray[np.float64] = (sums + _PRIOR_ROWS * label.mean()) / (counts + _PRIOR_ROWS)
    return means


def _commonest(codes: NDArray[np.int64], label: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """[bins]: the commonest class of each bin; of all rows, where the bin is empty."""
    classes = int(label.max()) + 1
    pairs, counts = np.unique(codes * classes + label.astype(np.int64), return_counts=True)
    best = np.full(bins, float(np.bincount(label.astype(np.int64)).argmax()))
    order = np.argsort(counts, kind="stable")
    # Of several classes of one bin the last that is written stays: the commonest.
    best[pairs[order] // classes] = pairs[order] % classes
    return best


def _r2(foretold: NDArray[np.float64], label: NDArray[np.float64]) -> float | None:
    spread = label.var()
    return None if spread == 0 else float(1 - ((foretold - label) ** 2).mean() / spread)


def _accuracy_gain(foretold: NDArray[np.float64], label: NDArray[np.float64]) -> float | None:
    base = np.bincount(label.astype(np.int64)).max() / len(label)
    return None if base == 1 else float(((foretold == label).mean() - base) / (1 - base))


def _fine(task: Task, value: NDArray[np.float32], label: NDArray[np.float64]) -> float:
    """The figure of a numeric value without bins, for which few rows would be too coarse; nulls stand in the middle.

    Binary: the AUC of the value, upwards or downwards. Regression: the R2 between its ranks and the label's.
    Multiclass: each row of one half gets the class of the nearest value of the other half, and the other way round.
    """
    null = np.isnan(value)
    if null.all() or label.min() == label.max() or len(label) < 4:
        return 0.5 if task == "binary" else 0.0
    value = np.where(null, np.quantile(value[~null], 0.5, method="lower"), value)
    if task == "binary":
        auc = _auc(value, label)
        return 0.5 if auc is None else max(auc, 1 - auc)
    if task == "regression":
        ranks = _ranks(value)
        return float(np.corrcoef(ranks, label)[0, 1] ** 2) if ranks.std() > 0 else 0.0
    even = np.arange(len(label)) % 2 == 0
    foretold = np.empty_like(label)
    for learn, judge in ((even, ~even), (~even, even)):
        order = np.argsort(value[learn], kind="stable")
        known = value[learn][order]
        above = np.searchsorted(known, value[judge]).clip(1, len(known) - 1)
        with np.errstate(invalid="ignore"):  # an infinity less an infinity
            lower = value[judge] - known[above - 1] < known[above] - value[judge]
        foretold[judge] = label[learn][order][above - lower]
    gain = _accuracy_gain(foretold, label)
    return 0.0 if gain is None else gain


def _auc(score: NDArray[np.floating], label: NDArray[np.floating]) -> float | None:
    """The share of pairs of a positive and a negative that are in order; equal scores count half."""
    positive = label > 0
    pairs = int(positive.sum()) * int((~positive).sum())
    if not pairs:
        return None
    _, index, counts = np.unique(score, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    count = int(positive.sum())
    return float((ranks[index][positive].sum() - count * (count + 1) / 2) / pairs)
