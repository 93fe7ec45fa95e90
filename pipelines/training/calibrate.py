"""Probabilities from logits, learnt on the validation rows: one temperature (Guo et al., arXiv 1706.04599)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.spec import Task

_LOW, _HIGH, _STEPS = math.log(0.05), math.log(20.0), 60
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """How a logit becomes a probability: sigmoid or softmax of logit / temperature; or, isotonic (binary alone),
    straight lines between `knots`, constant beyond them."""

    temperature: float = 1.0
    knots: tuple[tuple[float, float], ...] = ()
    """(logit, probability), both ascending; empty unless isotonic."""

    @property
    def method(self) -> str:
        """none, temperature or isotonic."""
        return "isotonic" if self.knots else "none" if self.temperature == 1.0 else "temperature"


def fit(task: Task, logits: Tensor, target: Tensor) -> Calibration:
    """The calibration of validation logits [n, o]."""
    return Calibration(temperature=temperature(task, logits, target))


def temperature(task: Task, logits: Tensor, target: Tensor) -> float:
    """The divisor of the logits with the least log loss, between 0.05 and 20; 1 for regression.

    Args:
        logits: [n, o].
        target: binary [n]; multiclass [n, classes].
    """
    if task == "regression":
        return 1.0
    logits, target = logits.double(), target.double()

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
    return math.exp((low + high) / 2)
