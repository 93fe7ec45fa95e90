"""What steps hand each other: small, frozen, and JSON both ways (they travel through XCom)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from pipelines.errors import NotFoundError, explain

StoreName = Literal["delta", "lakefs"]
_SNAPSHOT_ID = re.compile(r"(delta|lakefs):([a-z][a-z0-9_]{0,47})/([a-z][a-z0-9_]{0,47})@([0-9a-f]{1,64})")


class Record(BaseModel):
    """The base of every record."""

    # A metric may be NaN (the AUC of one class); JSON null would not come back as a number.
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class RunInfo(Record):
    """Which run does something; kept in every commit, promotion and decision."""

    run_id: str
    dag_id: str = "cli"
    code_version: str = "unknown"
    """Git commit, with `+dirty` when the tree differed."""
    backfill: bool = False


class SourceFile(Record):
    """A file of the landing zone, as it was read."""

    path: str
    sha256: str
    bytes: int


class Check(Record):
    """One thing that was checked, and what was found."""

    name: str
    column: str | None = None
    passed: bool
    observed: str
    """What was found, for a person."""
    allowed: str = ""
    """What would have passed."""


class StagedPartition(Record):
    """A partition's bytes, written and digested, not visible to any reader."""

    use_case: str
    table: str
    partition: str
    digest: str
    """BLAKE3 of the staged Parquet file; also its name once it is published."""
    rows: int
    bytes: int
    area: str
    """Where the store keeps it apart: a folder, or a branch of the run's own."""
    base: str | None = None
    """Digest of what main held under this key when this was staged: a publish replaces that and nothing else."""
    sources: tuple[SourceFile, ...] = ()
    problems: tuple[Check, ...] = ()
    """Failed checks that were found while reading: any of them fails the audit."""


class ValidationReport(Record):
    """The audit of exactly one staged partition."""

    use_case: str
    table: str
    partition: str
    digest: str
    """The digest of the bytes that were validated."""
    suite: str
    suite_digest: str
    rows: int
    passed: bool
    checks: tuple[Check, ...]
    sources: tuple[SourceFile, ...] = ()
    html: str | None = None
    """Path of the report that people read."""

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)


class Quarantined(Record):
    """A partition that was set aside: the report says why."""

    use_case: str
    table: str
    partition: str
    report: ValidationReport
    folder: str


class Landing(Record):
    """What `land` found for one table: staged partitions, and those that could not be read at all."""

    table: str
    staged: tuple[StagedPartition, ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    missing: tuple[str, ...] = ()
    """Keys whose file is not in the landing zone."""


class Validated(Record):
    """What `validate` decided: passed partitions with their reports, and the quarantined ones."""

    table: str
    staged: tuple[StagedPartition, ...] = ()
    reports: tuple[ValidationReport, ...] = ()
    """The passing report of each staged partition, in the same order."""
    quarantined: tuple[Quarantined, ...] = ()
    missing: tuple[str, ...] = ()


class SnapshotRef(Record):
    """An immutable published version of one table."""

    store: StoreName
    use_case: str
    table: str
    version: str
    """Delta: the table's version, a number. lakeFS: a commit id of the repository."""

    @property
    def id(self) -> str:
        """A name that a person can type, such as `delta:flights/rows@12`."""
        return f"{self.store}:{self.use_case}/{self.table}@{self.version}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The snapshot that an id names; whether there is one is the store's to say.

        Raises:
            NotFoundError: the text has not the form of an id.
        """
        found = _SNAPSHOT_ID.fullmatch(text)
        if found is None:
            raise NotFoundError(
                explain("snapshot", f"{text!r} is not a snapshot's id", allowed="ids like delta:flights/rows@12")
            )
        store, use_case, table, version = found.groups()
        return cls.model_validate({"store": store, "use_case": use_case, "table": table, "version": version})


class PublishedPartition(Record):
    """One partition as a snapshot holds it."""

    partition: str
    digest: str
    rows: int


class Publication(Record):
    """What a publish did: a repeat of the same bytes is `unchanged`."""

    snapshot: SnapshotRef
    published: tuple[PublishedPartition, ...] = ()
    unchanged: tuple[PublishedPartition, ...] = ()

    @property
    def partitions(self) -> tuple[PublishedPartition, ...]:
        """All partitions that the call was about, in key order."""
        return tuple(sorted(self.published + self.unchanged, key=lambda part: part.partition))


class Audit(Record):
    """A passing validation report, as a commit keeps it."""

    digest: str
    """SHA-256 of the report's JSON."""
    suite: str
    suite_digest: str
    checks: int
    rows: int
    sources: tuple[SourceFile, ...] = ()


class CommitNote(Record):
    """What a publisher writes into a commit: who changed what, and the audits that let it through."""

    kind: Literal["publish", "revert", "erase"] = "publish"
    table: str
    run: RunInfo
    partitions: dict[str, str]
    """Digest by partition, for what this commit replaced or added."""
    removed: tuple[str, ...] = ()
    """Partitions that are no longer there (a revert to before they came)."""
    audits: dict[str, Audit]
    """The audit of each of `partitions`."""
    provenance: dict[str, Any] = {}


class Commit(CommitNote):
    """One entry of a table's history."""

    snapshot: SnapshotRef
    """The version that the commit made."""
    at: datetime
    """When it was committed, by the store's clock (UTC): for people, and for how long old snapshots are kept."""


class Pin(Record):
    """A snapshot that is kept by name: never collected."""

    name: str
    snapshot: SnapshotRef
    reason: str


class Tombstone(Record):
    """Bytes that were removed for good, and why. It names no person."""

    id: str
    kind: Literal["erased", "collected"]
    table: str
    parts: tuple[PublishedPartition, ...]
    """What is gone; `digest` names the bytes in commits that stay."""
    reason: str
    run: RunInfo
    at: datetime


class Finding(Record):
    """Something wrong with a store that a person should know about."""

    name: str
    """Such as `stray_write`."""
    where: str
    what: str
    remedy: str
    repairable: bool
    """Whether `overnight doctor --repair` can mend it."""


class SnapshotDiff(Record):
    """From one snapshot of a table to another, by partition."""

    before: SnapshotRef
    after: SnapshotRef
    added: tuple[PublishedPartition, ...] = ()
    removed: tuple[PublishedPartition, ...] = ()
    replaced: tuple[tuple[PublishedPartition, PublishedPartition], ...] = ()
    """Old and new."""

    @property
    def rows(self) -> int:
        """Rows of the later snapshot less rows of the earlier one."""
        more = sum(part.rows for part in self.added) - sum(part.rows for part in self.removed)
        return more + sum(new.rows - old.rows for old, new in self.replaced)


class ModelRef(Record):
    """One registered model version."""

    name: str
    version: int
    run_id: str
    """The MLflow run that made it."""
    digest: str
    """SHA-256 over the digests of every artifact file."""

    @property
    def id(self) -> str:
        """Such as `flights@3`."""
        return f"{self.name}@{self.version}"


#: Values of searched settings, by field of `Teacher`.
Parameters = dict[str, int | float | str]


class Trial(Record):
    """One try of a search: a teacher trained with these settings, judged on the validation rows."""

    index: int
    """From 0, which is the spec's own settings."""
    state: Literal["running", "complete", "pruned", "failed"]
    """Pruned: it was ended because it was worse than most others at the same epoch."""
    parameters: Parameters
    curve: tuple[float, ...] = ()
    """What early stopping watches, after each epoch; less is better."""
    value: float | None = None
    """The best of the curve."""
    epoch: int | None = None
    """The epoch of the best, from 1."""
    error: str | None = None
    """Why it failed."""
    seconds: float = 0.0


class SearchResult(Record):
    """What a search chose, and what it took."""

    study: str
    """Name of the Optuna study; the same training set, space, seed, settings and code give the same name."""
    run_id: str | None = None
    """The MLflow run below which the trials are."""
    parameters: Parameters
    """The best trial's."""
    trial: int
    """The best trial."""
    value: float
    """Its validation loss."""
    own_value: float | None
    """The validation loss of the spec's own settings; None where that trial failed."""
    complete: int
    pruned: int
    failed: int
    """Trials by how they ended, those of earlier calls included."""
    seconds: float
    """Wall-clock seconds of searching, over restarts."""
    trials: int
    """The budget in trials."""
    minutes: float | None
    """The budget in minutes."""


class TrainingSet(Record):
    """A training set on disk, pinned to snapshots."""

    use_case: str
    folder: str
    as_of: str
    """The newest partition that was known."""
    snapshots: tuple[SnapshotRef, ...]
    train: tuple[str, str]
    """First and last partition, both included."""
    validation: tuple[str, str]
    holdout: tuple[str, str]
    reads: dict[str, tuple[tuple[str, str], ...]] = {}
    """What was read of each table: stretches of its snapshot's partitions, first and last, both included."""
    unlabelled: tuple[str, str] | None = None
    """First and last partition newer than the holdout whose features are read without a label. Rows of the train
    stretch that have no label are read as well."""
    rows: dict[str, int]
    """Rows of train, validation, holdout and unlabelled."""
    digest: str
    """SHA-256 over the Parquet files."""
    searched: SearchResult | None = None
    """What a search on this training set chose for the teacher; None: the spec's own settings."""


class Latency(Record):
    """How long a batch takes, from raw columns in memory to scores."""

    rows: int
    """Of a batch."""
    p50_ms: float
    p99_ms: float
    repeats: int
    """Batches that were timed. Of fewer than a hundred, p99 is the slowest."""


class Slice(Record):
    """The gate's metric on the rows of one value of a feature."""

    feature: str
    value: str | None
    """Cut off where it is long; None where it is null."""
    rows: int
    metric: float | None
    """None where there are too few rows to tell, or the metric is not defined on them (one class)."""


class Scorecard(Record):
    """One model on one set of rows."""

    model: str
    rows: int
    metrics: dict[str, float]
    rows_per_second: float | None = None
    bytes: int | None = None
    calibration_error: float | None = None
    """Expected calibration error of 15 bins of equal rows (binary; multiclass: of the class it chose)."""
    slices: tuple[Slice, ...] = ()
    latencies: tuple[Latency, ...] = ()

    @property
    def flat(self) -> dict[str, float]:
        """The figures of all rows by name, for a metric store."""
        found = {**self.metrics, "calibration_error": self.calibration_error, "rows_per_second": self.rows_per_second}
        for latency in self.latencies:
            found[f"p50_ms_batch_{latency.rows}"] = latency.p50_ms
            found[f"p99_ms_batch_{latency.rows}"] = latency.p99_ms
        return {f"{self.model}_{name}": value for name, value in found.items() if value is not None}


class TrainedModel(Record):
    """The artifact folder of one training, with its scorecards on the holdout."""

    folder: str
    digest: str
    run_id: str
    """The MLflow run that holds the curves and the artifacts."""
    training_set: TrainingSet
    scorecards: tuple[Scorecard, ...]
    seconds: float


class JobRef(Record):
    """One attempt at training on somebody else's machines."""

    name: str
    """The service's name of it, derived from the training key and the attempt."""
    key: str
    """The training key: the same data, spec and code give the same one."""
    attempt: int
    """1, 2, 3, ...: a new one only after the former is known to be over."""
    url: str | None = None
    """Where a person sees the job."""


class JobStatus(Record):
    """How a job is doing."""

    state: Literal["running", "stopping", "completed", "failed", "stopped"]
    secondary: str
    """The service's own word, such as Downloading, Training, Interrupted or MaxWaitTimeExceeded."""
    reason: str = ""
    """Why it failed, in the service's words."""

    @property
    def over(self) -> bool:
        """Whether nothing more happens to it."""
        return self.state in ("completed", "failed", "stopped")


class LogTail(Record):
    """Lines of a job's log that were not read before."""

    lines: tuple[str, ...] = ()
    position: dict[str, str] = {}
    """Where to go on, by stream: give it back for the next lines."""


class OpenTraining(Record):
    """A training whose MLflow run is open."""

    training_set: TrainingSet
    key: str
    """SHA-256 over training set, spec and code."""
    run_id: str
    """The MLflow run."""
    folder: str
    """Where the artifact belongs on this machine."""


class RemoteTraining(Record):
    """An open training and the job that does it."""

    opened: OpenTraining
    job: JobRef | None
    """None when the sealed artifact is here already."""
    ending: bool = False
    """The job is being stopped: when it is over, submit again, which makes the next attempt."""


class Evaluation(Record):
    """Champion and challenger on the same holdout."""

    use_case: str
    metric: str
    greater_is_better: bool
    holdout: tuple[str, str]
    rows: int
    challenger: Scorecard
    champion: Scorecard | None
    champion_version: int | None
    others: tuple[Scorecard, ...]
    """teacher, student_fp32, lightgbm, constant."""
    single_features: dict[str, float] = {}
    """What each feature says about the label by itself, on the training rows: see `gates.max_single_feature`. Empty
    where nobody measured it, which the gates refuse."""


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
    run: RunInfo


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


class Scored(Record):
    """Scores that are staged, not yet visible; or, for a repeat, already published."""

    model: ModelRef
    inputs: tuple[SnapshotRef, ...]
    staged: tuple[StagedPartition, ...]
    rows_in: dict[str, int]
    """Rows of the input partition, by partition."""
    fingerprints: dict[str, str]
    """SHA-256 over the digests of everything that a partition's features read, by partition."""
    reads: dict[str, dict[str, tuple[str, str]]] = {}
    """What a staged partition's features read: first and last partition of each table's snapshot, by partition."""
    spec: str = ""
    """Digest of the use case's spec."""
    unseen: dict[str, dict[str, float]]
    """Share of unseen values by partition and categorical feature."""
    unchanged: tuple[str, ...] = ()
    """Partitions whose predictions by this model from these inputs are published already."""


class AuditedScores(Record):
    """Scores with their passing audits."""

    scored: Scored
    validated: Validated


class Prediction(Record):
    """One partition of published predictions."""

    partition: str
    model_version: int
    """The version that made the rows: for an unchanged partition, the one that made them then."""
    inputs: tuple[SnapshotRef, ...]
    rows_in: int
    rows_scored: int
    digest: str
    state: Literal["published", "unchanged"]
    snapshot: SnapshotRef


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


# -- looking back ------------------------------------------------------------------------------------------------------


class TrainingRun(Record):
    """A training as the registry keeps it, registered or refused."""

    run_id: str
    """The MLflow run."""
    tags: dict[str, str]
    metrics: dict[str, float]
    model: ModelRef | None
    """The version that was made of it."""
    model_tags: dict[str, str] = {}
    """What registration wrote on that version."""


LinkKind = Literal[
    "partition",
    "row",
    "commit",
    "run",
    "audit",
    "file",
    "model",
    "training",
    "gates",
    "decision",
    "promotion",
    "snapshot",
    "pin",
    "tombstone",
    "note",
]


class Link(Record):
    """One thing of a trace, and what hangs on it."""

    kind: LinkKind
    id: str
    """Unique within its kind; of partitions, models, snapshots and runs it can be traced in turn."""
    how: str = ""
    """Its relation to the thing above it, such as "read" or "scored by"."""
    facts: dict[str, Any] = {}
    links: tuple[Link, ...] = ()


class Trace(Record):
    """Where something came from and what became of it."""

    name: str
    """What was asked for."""
    use_case: str
    root: Link

    def all(self, kind: LinkKind | None = None) -> list[Link]:
        """Every link, or every one of a kind, from the root down."""
        found, pending = [], [self.root]
        while pending:
            link = pending.pop(0)
            if kind is None or link.kind == kind:
                found.append(link)
            pending[:0] = link.links
        return found


class Replay(Record):
    """A prediction partition that was scored again from the recorded snapshots and model."""

    partition: str
    snapshot: SnapshotRef
    """The predictions that were looked at."""
    model: str
    inputs: tuple[str, ...]
    """Ids of the recorded snapshots."""
    published: str
    """Digest of what is published."""
    replayed: str | None
    """Digest of what came out now; None when it could not be scored."""
    outcome: Literal["identical", "different", "erased", "collected"]
    differences: tuple[str, ...] = ()
    """What differs, or what is gone, for a person."""
    max_score_difference: float | None = None
    """Over the rows that both hold; None when no row can be compared."""


class Kept(Record):
    """A snapshot that is never collected, and every reason why."""

    snapshot: SnapshotRef
    reasons: tuple[str, ...]


class CollectedTable(Record):
    """What a collection removes of one table, or would."""

    table: str
    parts: tuple[PublishedPartition, ...]
    """Partition files that no kept snapshot names."""
    kept: int
    """Partition files that stay."""

    @property
    def rows(self) -> int:
        """Rows of what goes."""
        return sum(part.rows for part in self.parts)


class Collection(Record):
    """What `collect` did, or in a dry run would do."""

    dry_run: bool
    keep_since: datetime
    """Whatever was visible at this instant or later stays."""
    tables: tuple[CollectedTable, ...]
    swept: tuple[str, ...] = ()
    """What dead runs left behind."""


class ErasedTable(Record):
    """What an erasure removed from one table, or would remove."""

    table: str
    rows: int
    """Rows that readers of the newest snapshot saw."""
    partitions: tuple[str, ...]
    """Partitions of the newest snapshot that were written anew without them."""
    files: int
    """Files removed for good, those of older snapshots included."""


class ErasedModel(Record):
    """A training that learned from, was calibrated on, or was judged on what is erased."""

    name: str
    """Such as `flights@3`; of a training that no gate let through, its MLflow run."""
    run_id: str
    parts: tuple[str, ...]
    """Which of train, validation and holdout read it."""
    holds_values: bool | None
    """Its sealed artifact itself holds values of the subject's column: retrain, then delete this one. None when the
    artifact cannot be looked into."""


class Erasure(Record):
    """What an erasure did, or would do. It names no subject."""

    use_case: str
    column: str
    id: str | None
    """In commits, tombstones and MLflow tags; None when nothing was done."""
    done: bool
    tables: tuple[ErasedTable, ...] = ()
    staged: tuple[str, ...] = ()
    """Staged partitions that were swept, whoever staged them: their runs must land them again."""
    quarantined: tuple[str, ...] = ()
    """Quarantined partitions whose original files were removed, with the reason."""
    files: tuple[str, ...] = ()
    """Report pages, training sets, artifact copies and cached files that were removed."""
    models: tuple[ErasedModel, ...] = ()
    unreplayable: tuple[str, ...] = ()
    """Prediction partitions that can no longer be computed again byte for byte."""
    remains: tuple[str, ...] = ()
    """Where the subject still is or may be: not Overnight's to remove."""

    @property
    def found(self) -> bool:
        """Whether the subject was anywhere."""
        return bool(self.tables or self.quarantined or self.files)
