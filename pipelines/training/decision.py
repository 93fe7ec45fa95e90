"""The score from which a row is decided positive, chosen on the validation rows as they are served. Shapes: n rows.

A chosen threshold lies halfway between the last row that is decided positive and the first that is not, so that a score
whose last bit another machine rounds otherwise is decided alike. It is a number that float32 has: comparisons in either
precision agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from pipelines.spec import UseCase
from pipelines.training.data import Table
from pipelines.training.measures import Scorer

if TYPE_CHECKING:
    from numpy.typing import NDArray

Rule = Literal["f1", "prior"]

#: Where the rows cannot tell.
EVEN = 0.5


def threshold(spec: UseCase, served: Scorer, validation: Table) -> float | None:
    """What `training.threshold` asks for; None where no row is decided positive or negative (not binary).

    Args:
        served: the very graph that is served, compressed and calibrated: its scores are what will be compared.
    """
    if spec.label.task != "binary":
        return None
    asked = spec.training.threshold
    return float(np.float32(asked)) if isinstance(asked, float) else choose(asked, validation.label, served(validation))


def choose(rule: Rule, label: NDArray[np.floating], score: NDArray[np.floating]) -> float:
    """The threshold of a rule. Each row counts once, whatever it weighed in the loss.

    Args:
        rule: f1: the highest F1; prior: as many decided positive as are. Rows of one score are decided together; of
            thresholds that are as good, the highest.
        label: [n], 0 or 1.
        score: [n], probabilities.

    Returns:
        0.5 where the rows cannot tell: they are of one class, or a score is not finite.
    """
    positives = int(np.count_nonzero(label))
    if not 0 < positives < len(label) or not np.isfinite(score).all():
        return EVEN
    scores, place = np.unique(score.astype(np.float32), return_inverse=True)
    # From the highest score down: how many rows have at least this score, and how many of them are positive.
    selected = np.cumsum(np.bincount(place)[::-1])
    found = np.cumsum(np.bincount(place, weights=label)[::-1])
    worth = 2 * found / (selected + positives) if rule == "f1" else -np.abs(selected - positives)
    cut = len(scores) - 1 - int(np.argmax(worth))
    return _between(scores[cut - 1], scores[cut]) if cut else float(scores[0])


def _between(below: np.float32, above: np.float32) -> float:
    """Halfway, and above the lower one where the two are neighbours."""
    middle = np.float32((float(below) + float(above)) / 2)
    return float(middle if middle > below else above)
