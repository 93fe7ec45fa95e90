"""Challengers whose true gain over their champion is known: how often does the gate promote them?

A row's score is its label times d plus normal noise, most of which both models share: the true AUC is Phi(d / sqrt 2).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from pipelines.metrics import metrics
from pipelines.policies.gates.quality import champion
from pipelines.records import Comparison, Evaluation, Holdout, Scorecard, SnapshotRef
from pipelines.resampling import paired_gain
from pipelines.spec import UseCase

_NORMAL = NormalDist()
#: AUC of the champion, share of ones, and what both models' noise has in common.
CHAMPION, _ONES, _SHARED = 0.70, 0.2, 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class Trials:
    """What became of challengers of one true gain."""

    gain: float
    """True difference of the AUC."""
    promoted: float
    """Share of them."""
    naive: float
    """Share that a comparison of two figures would have promoted."""
    deviation: float
    """Mean of the deviations that the bootstrap found."""
    spread: float
    """Standard deviation of the gains over the challengers: what the bootstrap should find."""

    def expected(self, margin: float, level: float) -> float:
        """The textbook's chance that a normal gain of this spread clears the margin."""
        return 1 - _NORMAL.cdf(_NORMAL.inv_cdf(level) - (self.gain - margin) / self.spread)


def simulate(spec: UseCase, gain: float, *, rows: int, trials: int, seed: int) -> Trials:
    """Judges challengers by the gate `champion`, each on a holdout of its own, against a champion as good as ever.

    Args:
        spec: binary, by AUC; its gates are those that judge.
        gain: true gain of each challenger.
    """
    reach = [math.sqrt(2) * _NORMAL.inv_cdf(auc) for auc in (CHAMPION + gain, CHAMPION)]
    promoted, naive, deviations, gains = 0, 0, [], []
    for trial in range(trials):
        rng = np.random.default_rng([seed, trial])
        label = (rng.random(rows) < _ONES).astype(float)
        shared = math.sqrt(_SHARED) * rng.normal(size=rows)
        mine, other = (d * label + shared + math.sqrt(1 - _SHARED) * rng.normal(size=rows) for d in reach)
        told = _met(spec, label, 1 / (1 + np.exp(-mine)), 1 / (1 + np.exp(-other)), trial)
        found = told.comparisons[0].gain
        promoted += champion(told, spec).passed
        naive += found.value >= spec.gates.margin_over_champion
        deviations.append(found.deviation)
        gains.append(found.value)
    return Trials(
        gain=gain,
        promoted=promoted / trials,
        naive=naive / trials,
        deviation=float(np.mean(deviations)),
        spread=float(np.std(gains, ddof=1)),
    )


def _met(spec: UseCase, label: np.ndarray, mine: np.ndarray, other: np.ndarray, seed: int) -> Evaluation:
    """The evaluation of two models on these rows: what the gate reads of it."""
    gates = spec.gates
    gain = paired_gain(
        "binary", "auc", label, mine, other, level=gates.confidence, resamples=gates.resamples, seed=seed
    )
    pinned = SnapshotRef(store="delta", use_case=spec.name, table="rows", version="1")
    return Evaluation(
        use_case=spec.name,
        metric=gates.metric,
        greater_is_better=True,
        holdout=Holdout(
            path="simulated",
            partitions=("2024-02-01", "2024-02-14"),
            as_of="2024-02-29",
            snapshots=(pinned,),
            rows=len(label),
            digest="0" * 64,
        ),
        learned={"challenger": "2024-01-31", "champion": "2024-01-31"},
        challenger=Scorecard(model="challenger", rows=len(label), metrics=metrics("binary", label, mine)),
        champion=Scorecard(model="champion", rows=len(label), metrics=metrics("binary", label, other)),
        champion_version=1,
        others=(),
        comparisons=(Comparison(against="champion", gain=gain),),
    )
