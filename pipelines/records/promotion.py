"""Evaluation, gates and the promotion log."""

from __future__ import annotations

from typing import Literal

from pipelines.records.base import Record, RunInfo
from pipelines.records.snapshots import SnapshotRef
from pipelines.records.training import ModelRef, Scorecard


class Interval(Record):
    """A figure with its bootstrap interval."""

    value: float
    """On all rows, once each."""
    low: float
    high: float
    """Ends, each left outside with (1 - level): the interval between both holds with 2 level - 1."""
    deviation: float
    """Standard deviation over the resamples."""
    level: float
    resamples: int


class SliceGain(Record):
    """Two models on the rows of one slice."""

    slice: str
    """Such as `origin = EWR`, or `distance in [529, 1076)`."""
    rows: int
    mine: float
    other: float
    gain: float
    """How much better the first is; negative: worse."""


class Comparison(Record):
    """The challenger against another model on the same rows, row by row."""

    against: str
    """`champion`, or a scorecard's model."""
    gain: Interval
    """Of the metric, better is positive: paired, so that both models meet the same resamples."""
    slices: tuple[SliceGain, ...] = ()
    """Of `features.slices`, those of `gates.slice_rows` rows or more, and by AUC ten of each class; at most a hundred,
    those that fell most."""
    worst: SliceGain | None = None
    """The worst of all slices that were looked through: found on one half of the rows, measured on the other. None
    where no slice has enough rows."""


class Holdout(Record):
    """The rows on which champion and challenger meet."""

    path: str
    """Parquet: `partition`, key, features, `label`."""
    partitions: tuple[str, str]
    """First and last, both included."""
    as_of: str
    """The newest partition that was known: every label had matured by then."""
    snapshots: tuple[SnapshotRef, ...]
    """What it was read from."""
    rows: int
    digest: str
    """SHA-256 of the file."""


class Group(Record):
    """What a model decides on the rows of one group of a sensitive column."""

    value: str | None
    rows: int
    selection_rate: float
    true_positive_rate: float | None
    """None where the group holds no positive."""
    false_positive_rate: float | None
    """None where the group holds no negative."""
    judged: bool
    """Whether it has enough rows to count in the ratio and the difference."""


class Fairness(Record):
    """The groups of one sensitive column (binary)."""

    column: str
    groups: tuple[Group, ...]
    selection_ratio: float | None
    """Lowest selection rate of a judged group divided by the highest. None: fewer than two judged groups."""
    odds_difference: float | None
    """Greatest difference between judged groups of true-positive or of false-positive rates. None: neither is known of
    two judged groups."""


class ServedAgainstFp32(Record):
    """The served student and its own fp32, timed in turn on the same rows, machine and minute, in processor time."""

    speed_ratio: float
    """Rows a second of the served one, divided by those of fp32."""
    latency_ratios: dict[int, float]
    """p99 of the served one divided by that of fp32, by rows of a batch."""
    size_ratio: float
    """Bytes of the served graph, divided by those of fp32."""
    more_bytes: int = 0
    """By how many the served graph is larger; negative: smaller."""
    slices: tuple[SliceGain, ...] = ()
    """The served one (mine) against fp32 (other), on slices of `gates.slice_rows` rows or more."""


class GoldenOutcome(Record):
    """What became of one golden pair."""

    name: str
    before: float
    after: float
    passed: bool


class Seen(Record):
    """A model on rows that it was trained on."""

    metric: str
    value: float
    skill: float | None
    """The metric, or the share of a constant's loss that is not lost: comparable between sets of rows. None where it is
    not defined."""
    rows: int


class SanityChecks(Record):
    """How the challenger behaves, whatever it scores."""

    distinct: int
    """Distinct scores on the holdout."""
    same: float
    """Share of the most frequent score."""
    outside: int
    """Scores that are no probability (classes: of a row, they add up to 1) or not finite."""
    sensitivity: dict[str, float]
    """Mean absolute change of the score when a feature's values are shuffled among the rows."""
    invariance: dict[str, float]
    """Greatest absolute difference of a score, by what was changed: `column_order` and `batch_size` of the engine;
    `graph`: the registered file as any client runs it, as a share of the largest score."""
    seen_metric: float | None
    """The metric on rows that the model was trained on. None where they are not at hand any more."""
    collapse: float | None = None
    """How much worse it is on the holdout: the difference for auc and accuracy; for the others that of the share of a
    constant's loss, on the same rows, which the model does away with."""
    golden: tuple[GoldenOutcome, ...] = ()


class DataAudit(Record):
    """Whether what a training read had passed its audit."""

    partitions: int
    """Partitions that were read."""
    unaudited: tuple[str, ...] = ()
    """Of those, as `table/partition`: published without a passing audit of exactly those bytes."""
    quarantined: tuple[str, ...] = ()
    """Of those: bytes that lie in quarantine."""


class Evaluation(Record):
    """Champion and challenger on the same holdout, and everything else that a gate judges."""

    use_case: str
    metric: str
    greater_is_better: bool
    holdout: Holdout
    learned: dict[str, str] = {}
    """The newest partition whose labels `challenger` and `champion` learned from, early stopping and calibration
    included."""
    challenger: Scorecard
    challenger_run: str = ""
    """The MLflow run that made it."""
    champion: Scorecard | None
    champion_version: int | None
    others: tuple[Scorecard, ...]
    """teacher, student_fp32, what is served, lightgbm, constant: on the holdout of the challenger's own training."""
    served: str = ""
    """Which of `others` is served."""
    interval: Interval | None = None
    """The challenger's metric on the holdout."""
    intervals: dict[str, Interval] = {}
    """Each of the challenger's metrics on the holdout, by name."""
    comparisons: tuple[Comparison, ...] = ()
    """Against the champion, where there is one."""
    rows_needed: int | None = None
    """Holdout rows with which `gates.detectable` is seen with `gates.power`, by the deviation that was found."""
    rarest_class: int | None = None
    """Holdout rows of the rarest class; None for a regression."""
    single_features: dict[str, float] = {}
    """What each feature says about the label by itself, on the training rows: see `gates.max_single_feature`. Empty
    where nobody measured it, which the gates refuse."""
    sanity: SanityChecks | None = None
    fairness: tuple[Fairness, ...] | None = None
    """Of each of `gates.fairness.columns`; None where it was not measured."""
    fp32: ServedAgainstFp32 | None = None
    """None where nothing was compressed, and where it could not be measured (see `errors`)."""
    data: DataAudit | None = None
    errors: dict[str, str] = {}
    """What could not be measured, by part, and why: a gate that needs it refuses."""


class Gate(Record):
    """One rule's verdict."""

    name: str
    passed: bool
    reason: str


class GateReport(Record):
    """Every gate's verdict; all are evaluated, every reason is kept."""

    passed: bool
    gates: tuple[Gate, ...]

    @property
    def reason(self) -> str:
        """The failed gates' reasons, or all of them when none failed."""
        chosen = [gate for gate in self.gates if not gate.passed] or list(self.gates)
        return "; ".join(f"{gate.name}: {gate.reason}" for gate in chosen)


class Approval(Record):
    """What a person said to a promotion."""

    by: str
    """Who, as Airflow knows them; by hand, the user of the operating system."""
    at: str
    """When, ISO 8601, UTC."""
    approved: bool


class Promotion(Record):
    """One entry of the append-only promotion log."""

    epoch: int
    """1, 2, 3, ...: the compare-and-set number of the champion."""
    kind: Literal["promote", "rollback"]
    version: int
    previous: int | None
    reason: str
    as_of: str
    """The partition up to which data was known."""
    last_night: str = ""
    """The newest partition that was scored when the entry was made: nights up to it ran without its model."""
    run: RunInfo
    """Which run, or which person's command."""
    trained_by: str = ""
    """The MLflow run that made the version."""
    gates: tuple[Gate, ...] = ()
    """The report that let it through."""
    approval: Approval | None = None
    """Where `promotion: manual` asked a person, and where a person's command made the entry."""

    def is_of(self, model: ModelRef) -> bool:
        """Whether it made this model the champion, or another version of the same training run."""
        return self.trained_by == model.run_id if self.trained_by else self.version == model.version


class AliasState(Record):
    """Whether the registry's aliases are where the promotion log says."""

    expected: dict[str, int | None]
    found: dict[str, int | None]
    epoch: int = 0
    """The newest epoch of the log."""
    followed: int = 0
    """The epoch that the aliases have followed, as the registered model notes it."""

    @property
    def unfinished(self) -> bool:
        """Whether whoever moved the aliases last did not come to the end."""
        return self.followed < self.epoch

    @property
    def moved(self) -> tuple[str, ...]:
        """Aliases that are elsewhere."""
        return tuple(name for name, version in self.expected.items() if self.found.get(name) != version)

    @property
    def told(self) -> str:
        """Where those are and where they belong, for a person."""

        def shown(version: int | None) -> str:
            return "nothing" if version is None else str(version)

        return "; ".join(
            f"{name} is at {shown(self.found.get(name))}, the promotion log says {shown(self.expected[name])}"
            for name in self.moved
        )
