"""References, observations and retraining decisions."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, PlainSerializer

from pipelines.records.base import Record
from pipelines.records.training import ModelRef


class NumericReference(Record):
    """Counts of a numeric column between frozen edges: bin i holds edges[i-1] <= x < edges[i], the first and the
    last bin are open."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    """len(edges) + 1 counts."""
    nulls: int


class CategoricalReference(Record):
    """Counts of each value of a categorical column."""

    counts: dict[str, int]
    nulls: int


class Reference(Record):
    """What the champion saw, frozen with it: drift is measured against this."""

    rows: int
    numeric: dict[str, NumericReference]
    categorical: dict[str, CategoricalReference]
    score: NumericReference
    score_rows: int


#: A column has no more bins than this: what JSON says of a run of empty ones is not believed beyond it.
_MOST_BINS = 1 << 24


def _shortened(bins: Sequence[int]) -> list[int]:
    """Counts with each run of two zeros or more as one negative number, its length.

    >>> _shortened((7, 0, 1, 0, 0, 0))
    [7, 0, 1, -3]
    """
    short: list[int] = []
    for empty, run in groupby(bins, key=lambda count: count == 0):
        counts = list(run)
        short += [-len(counts)] if empty and len(counts) > 1 else counts
    return short


def _restored(told: Any) -> Any:
    """The inverse of `_shortened`; counts that were not shortened stay as they are.

    >>> _restored([7, 0, 1, -3])
    (7, 0, 1, 0, 0, 0)
    """
    if not isinstance(told, list | tuple) or set(map(type, told)) != {int} or min(told) >= 0:
        return told
    if sum(max(-count, 1) for count in told) > _MOST_BINS:
        raise ValueError(f"more than {_MOST_BINS} bins")
    return tuple(count for each in told for count in ((each,) if each >= 0 else (0,) * -each))


class ColumnCounts(Record):
    """Rows of one column by the bins of a reference."""

    bins: Annotated[
        tuple[int, ...], BeforeValidator(_restored), PlainSerializer(_shortened, list[int], when_used="json")
    ]
    """In the order of the reference's bins, or of its categories. In JSON a run of empty bins is one negative number:
    a column of ten thousand categories, of which a night sees some, takes no more room than what it sees."""
    nulls: int = 0
    unseen: int = 0
    """Values that the reference does not hold (categorical columns)."""


class Counts(Record):
    """What was counted of a partition while it was scored. Counts of partitions add up, column by column."""

    rows: int
    reference: str
    """SHA-256 of the reference.json whose bins these are: counts of different references do not add up."""
    columns: dict[str, ColumnCounts]
    """By feature."""
    score: ColumnCounts | None = None
    """Of the score, or of the highest score of a multiclass row."""
    decisions: dict[str, int] = {}
    """Rows by what was decided of them."""


class ColumnDrift(Record):
    """One column of one partition against the champion's reference."""

    column: str
    psi: float
    null_share: float
    unseen_share: float = 0.0
    """Share of values that the reference did not hold (categorical columns)."""


class Observation(Record):
    """What one monitored partition looked like."""

    partition: str
    rows: int
    state: Literal["observed", "missing", "quarantined", "not_scored", "few_rows"]
    drift: tuple[ColumnDrift, ...] = ()
    score_psi: float | None = None
    labels: int = 0
    """Matured labels."""
    metric: float | None = None
    """The watched metric on matured labels."""


class Observations(Record):
    """A monitor run's window."""

    use_case: str
    as_of: str
    champion: ModelRef
    champion_metric: float
    """The watched metric of the champion on its own holdout."""
    metric: str
    greater_is_better: bool
    window: tuple[Observation, ...]
    pooled: tuple[ColumnDrift, ...] = ()
    """Drift of the whole window taken together: one night's mix is never that of months."""
    pooled_score_psi: float | None = None
    live_metric: float | None
    """The metric over all matured labels of the window."""
    live_labels: int
    new_labels: int
    """Matured labels newer than everything the champion saw."""
    report_html: str | None = None


class RetrainDecision(Record):
    """Yes or no, and why. The same window and spec give the same decision."""

    use_case: str
    as_of: str
    retrain: bool
    reasons: tuple[str, ...]
    champion: int
    id: str
    """Derived from what was decided on: the retraining's run id is made of it."""
