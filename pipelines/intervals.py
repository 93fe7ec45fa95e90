"""Intervals around a regression's scores, as its artifact keeps them. numpy alone: training measures with them too.

They are fitted by `pipelines.training.conformal`. Shapes: n rows, b bins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipelines.errors import SchemaMismatch, explain

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LOW, HIGH = "low", "high"


@dataclass(frozen=True)
class Intervals:
    """How far from a score the label lies with one probability, by bins of the score."""

    level: float
    """The probability."""
    edges: NDArray[np.float64]
    """[b - 1], ascending: a score at an edge is above it."""
    below: NDArray[np.float64]
    """[b], from the score to the lower end, in the label's unit: not positive."""
    above: NDArray[np.float64]
    """[b], from the score to the upper end: not negative."""

    @classmethod
    def of(cls, facts: Mapping[str, Any], level: float) -> Intervals:
        """What an artifact knows of a level.

        Args:
            facts: model.json.

        Raises:
            SchemaMismatch: it does not know the level, or is from before there were intervals.
        """
        import numpy as np

        known = (facts.get("intervals") or {}).get("levels", [])
        for one in known:
            if one["level"] == level:
                return cls(level, *(np.asarray(one[name], np.float64) for name in ("edges", "below", "above")))
        told = "it keeps no intervals: it is no regression, or was trained before there were any"
        levels = ", ".join(f"{one['level']:g}" for one in known)
        least = round(2 / (1 - level)) - 1
        raise SchemaMismatch(
            explain(
                f"scoring.interval {level:g}",
                f"the model was not calibrated for it; {f'it has {levels}' if known else told}",
                allowed=levels or None,
                remedy=f"{'ask for one of these, or ' if known else ''}retrain, with {least} validation rows or more",
            )
        )

    def around(self, scores: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The ends of each row's interval; low <= score <= high where the score is finite.

        Args:
            scores: [n].

        Returns:
            Low and high, [n]. A row's are the same bytes whatever is beside it: computed in float64, rounded once, and
            within what float32 has.
        """
        import numpy as np

        exact = scores.astype(np.float64)
        place = np.searchsorted(self.edges, exact, side="right")
        most = float(np.finfo(np.float32).max)
        low, high = (np.clip(exact + by[place], -most, most).astype(np.float32) for by in (self.below, self.above))
        return low, high
