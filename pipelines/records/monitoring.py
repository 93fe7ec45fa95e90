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


class Unrest(Record):
    """How far the partitions of a reference period were from each other; see `backends.psi_calibration`."""

    usual: dict[str, float]
    """The median index of each column."""
    worst: dict[str, float]
    """The largest part of an index that sampling leaves unexplained."""
    strangest: tuple[float, ...]
    """Ascending, one a calm partition: how unusual its most unusual column was, in units of what is usual."""
    set_aside: int = 0
    """Partitions that were far out themselves: no measure of calm."""


class Reference(Record):
    """What the champion saw, frozen with it: drift is measured against this."""

    rows: int
    numeric: dict[str, NumericReference]
    categorical: dict[str, CategoricalReference]
    score: NumericReference
    score_rows: int
    unrest: Unrest | None = None
    """Of the features' partitions; None: fewer than two, or frozen before this was measured."""
    score_unrest: Unrest | None = None
    days: dict[str, dict[str, ColumnCounts]] = {}
    """Counts of each feature by the day of the week, from "1", Monday; days with too few partitions have none."""
    daily_unrest: Unrest | None = None
    """Of partitions against those of the same day of the week."""


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


Level = Literal["calm", "warning", "alarm", "unknown"]
"""unknown: not enough data to say."""


class ColumnDrift(Record):
    """One column, or the score, of one partition or window against the champion's reference."""

    column: str
    psi: float
    null_share: float
    unseen_share: float = 0.0
    """Share of values that the reference did not hold (categorical columns)."""
    js: float | None = None
    """Jensen-Shannon distance (base 2, 0 to 1) of a categorical column."""
    vanished: tuple[str, ...] = ()
    """Categories that the reference's shares would have shown here, and that are not there; the likeliest first."""
    warn_at: float | None = None
    """PSI from which this is a warning: the spec's, or more where the reference's own partitions differ more."""
    alarm_at: float | None = None
    level: Level = "unknown"


class Estimate(Record):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float
    rows: int
    """What it was measured on."""


class Observation(Record):
    """What one monitored partition looked like."""

    partition: str
    rows: int
    state: Literal["observed", "missing", "quarantined", "not_scored", "few_rows"]
    drift: tuple[ColumnDrift, ...] = ()
    score: ColumnDrift | None = None
    decisions: dict[str, float] = {}
    """Share of rows by what was decided of them."""
    labels: int = 0
    """Matured labels of scored rows."""
    unlabelled: int = 0
    """Scored rows whose label should have matured and is not there."""
    quality: Estimate | None = None
    """The watched metric on matured labels."""
    expected: Estimate | None = None
    """An estimate of the watched metric from calibrated scores alone: what holds if they are as calibrated as they were
    on the holdout. It knows nothing of a changed relation between features and label."""


class Skew(Record):
    """Features of the same rows, as scoring made them and as training would."""

    partition: str
    rows: int
    columns: dict[str, int] = {}
    """Rows that differ, by feature; empty when all are identical."""


class DataHealth(Record):
    """What the data of the window lacks."""

    missing: tuple[str, ...] = ()
    """Partitions that are not published."""
    quarantined: tuple[str, ...] = ()
    not_scored: tuple[str, ...] = ()
    few_rows: tuple[str, ...] = ()
    failed: int = 0
    """Validations of the window's partitions that failed, of any table, mended since or not."""
    newest: str | None = None
    """The newest published partition of rows."""
    behind: int = 0
    """Partitions between that and the one looked at."""
    late_labels: tuple[str, ...] = ()
    """Partitions whose labels should have matured and are not published."""
    unlabelled: int = 0
    """Scored rows of published, matured label partitions that have no label."""
    strange_labels: int = 0
    """Labels of keys that no scored row has."""
    disagreeing_labels: int = 0
    """Keys with several labels that differ: none of them is believed."""
    restated_labels: tuple[str, ...] = ()
    """Partitions whose labels were published more than once: what was observed with the former stays as it was."""
    skew: Skew | None = None


class SliceQuality(Record):
    """Rows of the window with one value of a column."""

    column: str
    value: str
    rows: int
    labels: int
    quality: Estimate | None = None


class GroupRates(Record):
    """A sensitive column over the window."""

    column: str
    selected: dict[str, float]
    """Share of rows decided for, by group of enough rows."""
    ratio: float | None
    """The lowest of them by the highest; None with fewer than two groups, or when nobody is decided for."""


class Observations(Record):
    """A monitor run's window."""

    use_case: str
    as_of: str
    champion: ModelRef
    champion_as_of: str | None = None
    """The partition that the champion's training was asked for."""
    champion_metric: float
    """The watched metric of the champion on its own holdout."""
    metric: str
    greater_is_better: bool
    window: tuple[Observation, ...]
    pooled: tuple[ColumnDrift, ...] = ()
    """Drift of the whole window taken together: one night's mix is never that of months."""
    pooled_score: ColumnDrift | None = None
    live: Estimate | None = None
    """The metric over all matured labels of the window."""
    live_labels: int
    expected: Estimate | None = None
    """See `Observation.expected`: over the partitions of the window whose labels have not matured."""
    new_labels: int
    """Matured labels newer than everything the champion saw."""
    new_labels_since: str | None = None
    """The newest partition of labels that the champion saw."""
    health: DataHealth = DataHealth()
    slices: tuple[SliceQuality, ...] = ()
    fairness: tuple[GroupRates, ...] = ()
    report_html: str | None = None


class Signal(Record):
    """One kind of evidence in a decision."""

    name: Literal["inputs", "scores", "decay", "age"]
    level: Level
    told: str
    columns: tuple[str, ...] = ()
    """What is in alarm."""
    since: str | None = None
    """The first partition of the present alarm."""


class TrainingOutcome(Record):
    """What came of a training that was asked for."""

    as_of: str
    newest: str
    """The newest partition of labels that it saw, its holdout included."""
    decision: str | None = None
    """Id of the decision that asked for it; None: a person did."""
    version: int | None = None
    """What was registered; None: a gate refused it, or it failed."""
    promoted: bool = False
    refused: bool = False
    """A gate, or a person, said no. Neither promoted nor refused: it failed, or is still at work."""
    new_labels: int = 0
    """Matured labels newer than `newest` by the decision's time."""
    seconds: float | None = None
    """Wall time of the training."""


class RetrainDecision(Record):
    """Yes or no, and why. The same window and spec give the same decision."""

    use_case: str
    as_of: str
    retrain: bool
    reasons: tuple[str, ...]
    champion: int
    id: str
    """Derived from what was decided on: the retraining's run id is made of it."""
    signals: tuple[Signal, ...] = ()
    escalate: bool = False
    """Whether a person has to look: there is reason to retrain, and retraining on this data did not help."""
    since: str | None = None
    """First partition of the training window; None: all."""
    policy: str = ""
    """SHA-256 of the spec's drift and retraining."""
    backfill: bool = False
