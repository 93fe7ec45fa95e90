"""Probabilities from logits, learnt on the validation rows: one temperature (Guo et al., arXiv 1706.04599), or a rising
line (isotonic regression; Zadrozny and Elkan, 2002). Shapes: n rows, o outputs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipelines.spec import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

Method = Literal["auto", "temperature", "isotonic", "none"]

_LOW, _HIGH, _STEPS = math.log(0.05), math.log(20.0), 60
_GOLDEN = (math.sqrt(5) - 1) / 2
#: An isotonic line has at most so many knots, and rows enough for each; auto thinks of it from so many rows on, and so
#: many of either class.
_KNOTS, _KNOT_ROWS = 64, 20
_ISOTONIC_ROWS, _ISOTONIC_CLASS_ROWS = 1000, 50
_FOLDS = 5
#: The outermost knots lie so much nearer to 0 and 1 than their blocks: the rows in between keep their order.
_EDGE = 0.01
#: Logits nearer than this are one knot: a line between them would be too steep for float32.
_GAP = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How a logit becomes a probability: sigmoid or softmax of logit / temperature; or, isotonic (binary alone),
    straight lines between `knots`, constant beyond them."""

    temperature: float = 1.0
    knots: tuple[tuple[float, float], ...] = ()
    """(logit, probability), both strictly ascending as float32, at least two; empty unless isotonic."""
    losses: Mapping[str, float] = field(default_factory=dict)
    """Cross-validated log loss (nats) of the methods that auto chose from; empty where there was no choice."""

    @property
    def method(self) -> str:
        """none, temperature or isotonic."""
        return "isotonic" if self.knots else "none" if self.temperature == 1.0 else "temperature"


def fit(task: Task, logits: Tensor, target: Tensor, method: Method = "temperature") -> Calibration:
    """The calibration of validation logits.

    Args:
        logits: [n, o], rows in the order of time.
        target: binary [n], 0 or 1; multiclass [n, classes]; regression: not looked at.
        method: isotonic is for binary; where its rows give no line that rises, it is a temperature. auto is isotonic
            where that has the lower cross-validated log loss, from 1,000 rows with 50 of either class on; else a
            temperature.
    """
    if task == "regression" or method == "none":
        return Calibration()
    if task == "binary" and method == "isotonic":
        return _isotonic(logits, target)
    enough = len(target) >= _ISOTONIC_ROWS and task == "binary" and _rarer_rows(target) >= _ISOTONIC_CLASS_ROWS
    if method == "auto" and enough:
        return _better(logits, target)
    return Calibration(temperature=temperature(task, logits, target))


def apply(calibration: Calibration, task: Task, logits: Tensor) -> Tensor:
    """Scores [n] or [n, classes] of logits [n, o], as the served graph gives them."""
    if calibration.knots:
        x, y = np.array(calibration.knots).T
        return torch.from_numpy(np.interp(logits[:, 0].double().numpy(), x, y))
    calm = logits.double() / calibration.temperature
    return calm.softmax(1) if task == "multiclass" else calm[:, 0].sigmoid() if task == "binary" else logits[:, 0]


def temperature(task: Task, logits: Tensor, target: Tensor) -> float:
    """The divisor of the logits with the least log loss, between 0.05 and 20; 1 for regression.

    1 as well where the rows cannot tell: they are of one class, or no other divisor is better. One row in all is
    thought of that is of every class alike, so that rows without an error do not ask for certainty.

    Args:
        logits: [n, o].
        target: binary [n]; multiclass [n, classes].
    """
    if task == "regression":
        return 1.0
    logits, target = logits.double(), target.double()
    of_class = torch.stack([1 - target, target], 1).sum(0) if task == "binary" else target.sum(0)
    if (of_class > 0).sum() < 2:
        return 1.0
    unsure = 1 / (len(target) + 1)
    target = target * (1 - unsure) + unsure / len(of_class)

    def loss(log_temperature: float) -> float:
        calm = logits / math.exp(log_temperature)
        if task == "binary":
            return functional.binary_cross_entropy_with_logits(calm[:, 0], target).item()
        return functional.cross_entropy(calm, target).item()

    # Golden-section search: the loss has one minimum in the logarithm of the temperature.
    with torch.no_grad():
        low, high = _LOW, _HIGH
        for _ in range(_STEPS):
            span = _GOLDEN * (high - low)
            if loss(high - span) < loss(low + span):
                high = low + span
            else:
                low = high - span
        found = (low + high) / 2
        return math.exp(found) if loss(found) < loss(0.0) - 1e-12 else 1.0


def _rarer_rows(target: Tensor) -> int:
    positive = int(target.sum().item())
    return min(positive, len(target) - positive)


def _better(logits: Tensor, target: Tensor) -> Calibration:
    """Temperature or isotonic by the log loss on rows that they were not fitted on: folds are stretches of time."""
    fold = torch.arange(len(target)) * _FOLDS // len(target)
    losses = {}
    for method in ("temperature", "isotonic"):
        scores = torch.empty(len(target), dtype=torch.float64)
        for i in range(_FOLDS):
            fitted = fit("binary", logits[fold != i], target[fold != i], method)
            scores[fold == i] = apply(fitted, "binary", logits[fold == i])
        losses[method] = functional.binary_cross_entropy(scores, target.double()).item()
    best = min(losses, key=lambda name: losses[name])
    return replace(fit("binary", logits, target, "isotonic" if best == "isotonic" else "temperature"), losses=losses)


def _isotonic(logits: Tensor, target: Tensor) -> Calibration:
    """Pools rows by quantiles of their logit, then pools neighbours that do not rise; a knot is a block's mean.

    Between the means the line rises, so that the rows keep their order and the AUC its value. No knot is at 0 or 1: a
    block of one class alone counts half a row of the other.
    """
    x, y = logits[:, 0].double().numpy(), target.double().numpy()
    knots = _usable(*_blocks(x, y), float(x.min()), float(x.max()))
    if len(knots) < 2 or _rarer_rows(target) == 0:
        return Calibration(temperature=temperature("binary", logits, target))
    return Calibration(knots=knots)


def _blocks(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean logit and share of positives of each block of rows, both ascending."""
    from sklearn.isotonic import isotonic_regression

    # Two of the knots are the outermost ones.
    groups = int(np.clip(len(x) // _KNOT_ROWS, 1, _KNOTS - 2))
    edges = np.unique(np.quantile(x, np.linspace(0, 1, groups + 1)[1:-1]))
    code = np.searchsorted(edges, x, side="right")
    rows = np.bincount(code, minlength=len(edges) + 1)
    code, rows = (np.cumsum(rows > 0) - 1)[code], rows[rows > 0]
    share = np.bincount(code, y) / rows
    risen = isotonic_regression(share, sample_weight=rows.astype(np.float64))
    # Groups of one value are one block; its share is the share of its rows.
    block = np.unique(risen, return_inverse=True)[1][code]
    count = np.bincount(block)
    p = np.bincount(block, y) / count
    # Shares rise strictly, so only the first can be 0 and only the last 1: half a row of the other class, and no
    # further than half the way to the neighbour.
    half, one = 0.5 / (count + 1), len(p) == 1
    if p[0] == 0:
        p[0] = half[0] if one else min(half[0], p[1] / 2)
    if p[-1] == 1:
        p[-1] = 1 - (half[-1] if one else min(half[-1], (1 - p[-2]) / 2))
    return np.bincount(block, x) / count, p


def _usable(
    x: NDArray[np.float64], p: NDArray[np.float64], lowest: float, highest: float
) -> tuple[tuple[float, float], ...]:
    """The knots of the blocks, with one more at either end of the logits where the end is not a block's own mean."""
    points = list(zip(x, p, strict=True))
    if lowest <= x[0] - _GAP:
        points.insert(0, (lowest, p[0] * (1 - _EDGE)))
    if highest >= x[-1] + _GAP:
        points.append((highest, 1 - (1 - p[-1]) * (1 - _EDGE)))
    knots: list[tuple[float, float]] = []
    for logit, share in np.array(points, np.float32).tolist():
        if not knots or (logit >= knots[-1][0] + _GAP and share > knots[-1][1]):
            knots.append((logit, share))
    return tuple(knots)
